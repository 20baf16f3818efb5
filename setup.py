"""What pyproject.toml cannot say: the folder conf/ is the package `lightning_ccn.conf` of a wheel."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lightning_ccn*"]), "lightning_ccn.conf"],
    package_dir={"lightning_ccn.conf": "conf"},
)
