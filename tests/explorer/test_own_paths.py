"""Paths that are typed into a page: any on one's own machine, else those inside of folders that were named."""

import os
import re
import socket
from pathlib import Path

import pytest

from plugin.explorer.__main__ import main
from plugin.explorer.server import connection, own_paths
from plugin.explorer.server.own_paths import allowed, resolved, resolved_file, resolved_folder

SECRET = "secret.txt"


@pytest.fixture(autouse=True)
def no_folders(monkeypatch):
    monkeypatch.setattr(own_paths, "_folders", [])
    here_only(monkeypatch, False)


def here_only(monkeypatch, answer):
    monkeypatch.setattr(connection, "serves_this_machine_only", lambda: answer)


@pytest.fixture
def places(tmp_path):
    """A folder `open` that may be named, and a file outside of it."""
    (tmp_path / SECRET).write_text("secret")
    (tmp_path / "open" / "deep").mkdir(parents=True)
    (tmp_path / "open-too").mkdir()
    (tmp_path / "open-too" / "near.pt").write_text("near")
    (tmp_path / "open" / "deep" / "mine.pt").write_text("mine")
    return Path(os.path.realpath(tmp_path))


def test_any_path_on_ones_own_machine(places, monkeypatch):
    here_only(monkeypatch, True)
    assert allowed()
    assert resolved(str(places / SECRET)) == places / SECRET
    assert resolved_folder(f"{places}/open/../open/deep/") == places / "open" / "deep"
    assert resolved_file(f'  "{places / SECRET}" ') == places / SECRET
    monkeypatch.chdir(places)
    assert resolved("open/deep/mine.pt") == places / "open" / "deep" / "mine.pt"
    monkeypatch.setenv("HOME", str(places))
    assert resolved("~/open") == places / "open"
    (places / "at 1\u202fPM.png").touch()  # as macOS names its screenshots
    assert resolved("at 1\u202fPM.png").name == "at 1\u202fPM.png"
    (places / "link").symlink_to(SECRET)
    assert resolved("link") == places / SECRET


def test_none_where_other_machines_ask(places):
    assert not allowed()
    for text in (str(places / SECRET), str(places), "/nothing/there", ""):
        with pytest.raises(ValueError, match=r"^This server opens no paths: .* --folder FOLDER$"):
            resolved(text)


@pytest.mark.parametrize("here", [True, False])
def test_inside_of_named_folders(here, places, monkeypatch):
    here_only(monkeypatch, here)
    own_paths.add_folder(places / "open")
    assert allowed()
    mine = places / "open" / "deep" / "mine.pt"
    assert resolved(str(mine)) == resolved("deep/mine.pt") == resolved("deep/../deep/mine.pt") == mine
    assert resolved(".") == places / "open"
    (places / "open" / "inside").symlink_to("deep")
    assert resolved("inside/mine.pt") == mine
    with pytest.raises(ValueError, match=r"near\.pt is not inside"):
        resolved(str(places / "open-too" / "near.pt"))
    own_paths.add_folder(places / "open-too")
    assert resolved(str(places / "open-too" / "near.pt")).read_text() == "near"


def test_nothing_outside_of_named_folders_and_no_word_on_what_is_there(places, monkeypatch):
    monkeypatch.setenv("HOME", str(places))
    folder = places / "open"
    own_paths.add_folder(folder)
    (folder / "out").symlink_to(places / SECRET)
    (folder / "nowhere").symlink_to(places / "no such file")
    (folder / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    there = [f"{places}/{SECRET}", f"../{SECRET}", "deep/../../secret.txt", "out", f"up/{SECRET}", f"~/{SECRET}", ".."]
    absent = [f"{places}/none", "../none", "nowhere", "up/none", "~/none", "/", "/dev/zero", "/etc/passwd/x"]
    for text in there + absent:
        sentence = f"{text} is not inside of the folders that this server opens: {folder}"
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            resolved(text)
    with pytest.raises(ValueError, match="cannot be opened"):
        resolved("loop")


def test_link_to_a_folder_may_be_named(places):
    (places / "link").symlink_to("open")
    own_paths.add_folder(places / "link")
    assert resolved(f"{places}/link/deep/mine.pt") == places / "open" / "deep" / "mine.pt"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nothing.pt", "cannot be opened: no such file"),
        ("open/deep/mine.pt/more", "cannot be opened: not a directory"),
        ("a" * 300, "cannot be opened: file name too long"),
        ("", "no path"),
        ("  ", "no path"),
        ("''", "no path"),
        ("a\0b", "no path"),
        ("a\nb", "no path"),
        ("\udc80", "no path"),
        ("a/" * 4000, "no path"),
        ("pipe", "a pipe or a socket"),
        ("socket", "a pipe or a socket"),
        ("/dev/zero", "is a device"),
        ("/dev/tty", "is a device"),
    ],
)
def test_neither_a_file_nor_a_folder(text, reason, places, monkeypatch):
    here_only(monkeypatch, True)
    monkeypatch.chdir(places)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        with pytest.raises(ValueError, match=reason) as refused:
            resolved(text)
    assert "\n" not in str(refused.value)


def test_file_where_a_folder_is_due_and_the_reverse(places, monkeypatch):
    here_only(monkeypatch, True)
    with pytest.raises(ValueError, match=rf"secret\.txt is a file: give the folder {places}$"):
        resolved_folder(str(places / SECRET))
    with pytest.raises(ValueError, match=r"open is a folder: give a file in it$"):
        resolved_file(str(places / "open"))


def test_file_that_may_not_be_read(places, monkeypatch):
    here_only(monkeypatch, True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a test may run as root, which may read everything
    with pytest.raises(ValueError, match=r"secret\.txt may not be read by the server"):
        resolved(str(places / SECRET))


def test_folders_come_from_the_command_line(places, capsys):
    assert main(["--folder", str(places / "open"), "--folder", str(places / "none")]) == 2
    assert capsys.readouterr().err == f"error: {places}/none is no folder: give one whose files the pages may open\n"
    assert own_paths.folders() == (places / "open",)
