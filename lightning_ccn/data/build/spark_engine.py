"""The engine for a log that outgrows one machine: Apache Spark, which runs the same SQL through sqlglot."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lightning_ccn.data.build.engine import FILE, LONGEST, PLACE, ROW, UNEQUAL, has_zone, literal, refuse_long
from lightning_ccn.data.build.log_files import LogFiles
from lightning_ccn.data.places import Place
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError, OptionError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

BROKEN = "_broken"  # a column: the line of a CSV file that cannot be read
WITHIN = 33  # bits of the number of a row within its partition, in what Spark calls monotonically increasing


class SparkEngine:
    """Spark, in the session of `spark-submit`, or in one of this machine.

    Tables are Parquet files in a folder, which all executors must see.

    Args:
        folder: The folder, on a file system that the driver and all executors share.

    Attributes:
        keeps_tables: Whether tables outlive this process: they do.

    Raises:
        OptionError: pyspark or sqlglot is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import sqlglot
            from pyspark.sql import SparkSession, functions
        except ImportError as error:
            raise OptionError(f"engine is spark: {error}; install lightning_ccn[spark]") from None
        self._folder, self._glot, self._functions = folder.resolve(), sqlglot, functions
        self.keeps_tables = True
        self._own = SparkSession.getActiveSession() is None
        self._spark = SparkSession.builder.appName("ccn data build").getOrCreate()
        for name, value in {
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
            "spark.sql.parquet.mergeSchema": "true",
            "spark.sql.parquet.compression.codec": "zstd",
            "spark.sql.execution.arrow.pyspark.enabled": "true",
        }.items():
            self._spark.conf.set(name, value)
        self._broken: dict[str, DataFrame] = {}
        self._made = 0

    def read(self, name: str, files: LogFiles, lists: tuple[str, ...] = ()) -> None:
        """See `Engine`."""
        F = self._functions
        frame = self._csv(name, files) if files.headers else self._parquet(files)
        if lists:
            types = dict(frame.dtypes)
            whole = [F.coalesce(frame[each], F.array().cast(types[each])).alias(each) for each in lists]
            sizes = F.array(*(F.when(frame[each].isNotNull(), F.size(frame[each])) for each in lists))
            unequal = F.coalesce(F.array_min(sizes) < F.array_max(sizes), F.lit(False)).alias(UNEQUAL)
            others = [*(frame[each] for each in frame.columns if each not in lists), unequal]
            taken = frame.select(*others, F.posexplode_outer(F.arrays_zip(*whole)).alias(PLACE, "_values"))
            frame = taken.select(
                *(each for each in (*frame.columns, UNEQUAL) if each not in lists),
                *(F.col("_values").getField(each).alias(each) for each in lists),
                F.col(PLACE).cast("bigint").alias(PLACE),
            )
        frame.createOrReplaceTempView(name)

    def broken(self, name: str) -> list[tuple[str, int, int, str]]:
        """See `Engine`. Spark does not number lines: it shows the line itself, as number 0."""
        if name not in self._broken:
            return []
        lines = self._broken[name].orderBy(FILE, BROKEN).collect()
        for row in lines:
            refuse_long(f"{row[FILE]}: {row[BROKEN][:80]!r}", row[BROKEN].count("\n") + 1, len(row[BROKEN]))
        return [(row[FILE], 0, 1, f"cannot be read: {row[BROKEN][:80]!r}") for row in lines]

    def micros(self, value: str, kind: str, zone: str | None) -> str:
        """See `Engine`."""
        whole = f"UNIX_MICROS(TRY_CAST({value} AS TIMESTAMPTZ))"
        if kind == "instant" or zone is None:
            return whole
        of_zone = f"UNIX_MICROS(TO_UTC_TIMESTAMP(TRY_CAST({value} AS TIMESTAMP), {literal(zone)}))"
        return f"CASE WHEN {has_zone(value, kind)} THEN {whole} ELSE {of_zone} END"

    def different(self, values: str) -> str:
        """See `Engine`."""
        return f"CASE WHEN {values} IS NOT NULL THEN SIZE(ARRAY_DISTINCT(ARRAY_COMPACT({values}))) END"

    def fail(self, text: str) -> str:
        """See `Engine`."""
        return f"RAISE_ERROR('DataError: ' || {text})"

    def apart(self, query: str, column: str, separator: str | None) -> str:
        """See `Engine`."""
        F, frame = self._functions, self._frame(query)
        values = F.col(column) if separator is None else F.split(F.col(column), re.escape(separator), -1)
        taken = frame.select(
            *(each for each in frame.columns if each != column), F.posexplode(values).alias(PLACE, column)
        )
        self._made += 1
        taken.createOrReplaceTempView(f"apart{self._made}")
        return f"SELECT * FROM apart{self._made}"

    def file(self, path: Path) -> str:
        """See `Engine`."""
        self._made += 1
        self._spark.read.parquet(_uri(path)).createOrReplaceTempView(f"file{self._made}")
        return f"SELECT * FROM file{self._made}"

    def table(self, name: str, query: str) -> int:
        """See `Engine`."""
        return self._save(name, self._frame(query))

    def number(self, name: str, query: str, order: str, column: str) -> int:
        """See `Engine`. Each partition numbers its own rows, so that no worker holds all of them."""
        F = self._functions
        ordered = self._frame(f"SELECT * FROM ({query}) AS each ORDER BY {order}")
        self._save(f"{name}_ordered", ordered.withColumn("_at", F.monotonically_increasing_id()))
        frame = self._spark.table(f"{name}_ordered").withColumn("_part", F.shiftright("_at", WITHIN))
        counts = sorted((row["_part"], row["count"]) for row in frame.groupBy("_part").count().collect())
        begin, before = [], 0
        for part, count in counts:
            begin.append((part, before))
            before += count
        parts = self._spark.createDataFrame(begin, "_part bigint, _begin bigint")
        number = F.col("_begin") + F.col("_at").bitwiseAND(2**WITHIN - 1) + 1
        joined = frame.join(F.broadcast(parts), "_part").withColumn(column, number)
        rows = self._save(name, joined.drop("_part", "_begin", "_at"))
        self.drop(f"{name}_ordered")
        return rows

    def known(self, name: str) -> None:
        """See `Engine`."""
        if (self._folder / name / "_SUCCESS").exists():
            self._spark.read.parquet(_uri(self._folder / name)).createOrReplaceTempView(name)

    def view(self, name: str, query: str) -> None:
        """See `Engine`."""
        self._frame(query).createOrReplaceTempView(name)

    def drop(self, *names: str) -> None:
        """See `Engine`."""
        for name in names:
            self._spark.catalog.dropTempView(name)
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def rows(self, query: str) -> list[dict[str, Any]]:
        """See `Engine`."""
        return [row.asDict() for row in self._frame(query).collect()]

    def stream(self, query: str) -> Iterator[pa.RecordBatch]:
        """See `Engine`. The rows go through files: their names are in the order of the rows."""
        self._made += 1
        place = self._folder / f"stream{self._made}"
        self._write(place, self._frame(query))
        for path in sorted(place.glob("part-*.parquet")):
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches()
            path.unlink()
        shutil.rmtree(place)

    def close(self) -> None:
        """See `Engine`."""
        if self._own:
            self._spark.stop()

    def _frame(self, query: str) -> DataFrame:
        [text] = self._glot.transpile(query, read="duckdb", write="spark")
        return self._spark.sql(text)

    def _save(self, name: str, frame: DataFrame) -> int:
        self._write(self._folder / name, frame)
        saved = self._spark.read.parquet(_uri(self._folder / name))
        saved.createOrReplaceTempView(name)
        return int(saved.count())

    def _write(self, place: Path, frame: DataFrame) -> None:
        from py4j.protocol import Py4JJavaError
        from pyspark.errors import PySparkException

        try:
            frame.write.mode("overwrite").parquet(_uri(place))
        except (Py4JJavaError, PySparkException) as error:
            text = " ".join(str(error).split())
            if told := re.search(r"DataError: (.*?)(?: SQLSTATE|$)", text):  # of `fail`
                raise DataError(told[1]) from None
            raise DataError(f"the log cannot be read: {text[:500]}") from None

    def _parquet(self, files: LogFiles) -> DataFrame:
        F = self._functions
        frame = self._reader(files).parquet(*(_uri(path) for path in files.paths))
        row = F.col("_metadata.row_index").alias(ROW)
        return frame.select(*(F.col(_quoted(each)) for each in files.columns), self._path(), row)

    def _csv(self, name: str, files: LogFiles) -> DataFrame:
        """One reader for the files of each header: a reader takes the columns by their places."""
        F, found = self._functions, None
        for header in dict.fromkeys(files.headers):
            alike = [path for path, own in zip(files.paths, files.headers, strict=True) if own == header]
            columns = ", ".join(f"{_quoted(each)} STRING" for each in (*header, BROKEN, *files.partitions))
            read = self._reader(files).options(
                header=True,
                sep=files.delimiter,
                quote='"',
                escape='"',
                multiLine=True,
                columnNameOfCorruptRecord=BROKEN,
            )
            frame = read.schema(columns).csv([_uri(path) for path in alike])
            # Spark takes an open quote for a text that goes on to the end of the file
            values = [F.col(_quoted(each)) for each in header]
            endless = [F.when((F.length(value) >= LONGEST) & value.contains("\n"), value) for value in values]
            frame = frame.withColumn(BROKEN, F.coalesce(F.col(BROKEN), *endless))
            nothing = F.lit(None).cast("bigint").alias(ROW)
            chosen = frame.select(*(F.col(_quoted(each)) for each in files.columns), BROKEN, self._path(), nothing)
            found = chosen if found is None else found.unionByName(chosen)
        assert found is not None  # there is a file
        found = found.cache()  # Spark refuses to ask for broken lines alone
        self._broken[name] = found.where(F.col(BROKEN).isNotNull()).select(FILE, BROKEN)
        return found.where(F.col(BROKEN).isNull()).drop(BROKEN)

    def _reader(self, files: LogFiles) -> Any:
        reader = self._spark.read
        if files.partitions:
            folder = files.paths[0].resolve()
            while any(part.startswith(f"{files.partitions[0]}=") for part in folder.parts):
                folder = folder.parent
            reader = reader.option("basePath", _uri(folder))
        return reader

    def _path(self) -> Any:
        F = self._functions
        return F.regexp_replace(F.col("_metadata.file_path"), "^file:/+", "/").alias(FILE)


def _uri(path: Place) -> str:
    """A path for Spark, which takes it as it is: `as_uri` would write day=1 as day%3D1."""
    if isinstance(path, StorePath):
        return re.sub("^s3://", "s3a://", path.address)  # Hadoop's name for it
    return f"file://{path.resolve()}"


def _quoted(name: str) -> str:
    """A column's name in Spark's SQL."""
    return "`" + name.replace("`", "``") + "`"
