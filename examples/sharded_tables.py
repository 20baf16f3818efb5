"""A complete program: TorchRec tables under Lightning, sharded over two CPU ranks. It knows nothing of CCN."""

import lightning as L
import torch
from torch import nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor

from lightning_ccn.sharding import TorchRecStrategy


class Clicks(L.LightningModule):
    def configure_model(self):
        if hasattr(self, "tables"):
            return
        table = EmbeddingBagConfig(name="item", embedding_dim=16, num_embeddings=1_000_000, feature_names=["item"])
        self.tables = EmbeddingBagCollection(device=torch.device("meta"), tables=[table])
        self.head = nn.Linear(16, 1)

    def training_step(self, batch, batch_idx):
        items, click = batch
        logit = self.head(self.tables(items).to_dict()["item"]).squeeze(1)
        return nn.functional.binary_cross_entropy_with_logits(logit, click)

    def configure_optimizers(self):
        return torch.optim.Adagrad(self.parameters(), lr=0.05)  # of the head; the tables are the strategy's

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return tuple(part.to(device) for part in batch)


def batches(steps=20, bags=64):
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        lengths = torch.randint(1, 5, (bags,), generator=generator)
        ids = torch.randint(0, 1_000_000, (int(lengths.sum()),), generator=generator)
        click = torch.randint(0, 2, (bags,), generator=generator).float()
        yield KeyedJaggedTensor(keys=["item"], values=ids, lengths=lengths), click


if __name__ == "__main__":
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        max_epochs=1,
        strategy=TorchRecStrategy(table_optimizer="rowwise_adagrad", table_lr=0.05),
        use_distributed_sampler=False,
    )
    trainer.fit(Clicks(), torch.utils.data.DataLoader(list(batches()), batch_size=None))
