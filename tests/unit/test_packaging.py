"""What gets installed: the listed packages, all of them, nothing else, and nobody else's names."""

from __future__ import annotations

import configparser
from importlib.metadata import packages_distributions
from pathlib import Path

from did.contexts import FILE_BY_URL

ROOT = Path(__file__).parent.parent.parent
NOT_INSTALLED = {"tests", "bench"}


def listed_packages() -> list[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config["options"]["packages"].split()


def test_every_package_of_the_project_is_listed_and_tests_are_not() -> None:
    found = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for top in ROOT.iterdir()
        if top.is_dir() and not top.name.startswith(".") and top.name not in NOT_INSTALLED
        for path in top.rglob("__init__.py")
    }
    assert found == set(listed_packages())


def test_the_contexts_are_installed_with_their_package() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["did.contexts"].split(",")
    folder = ROOT / "did" / "contexts"
    installed = {path.name for pattern in patterns for path in folder.glob(pattern)}
    assert installed == set(FILE_BY_URL.values())


def test_the_page_and_the_verifier_are_package_data() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    data = config["options.package_data"]
    for package, folder in (("rpc", "page"), ("verifier", "js")):
        assert data[package].split() == [f"{folder}/*"]
        assert len(list((ROOT / package / folder).iterdir())) > 5


def test_each_top_level_name_has_one_owner() -> None:
    owners = packages_distributions()
    for name in listed_packages():
        if "." not in name:
            assert set(owners.get(name, [])) == {"zynk-node"}, name


def test_the_build_file_stays_three_lines() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) == 3
