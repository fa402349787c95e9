"""Small local copies of IMDB."""

import io
import tarfile

LABELS = ("neg", "pos")
DOCUMENTS = {
    f"aclImdb/{split}/{label}/{i}_{i}.txt": f" {split} {label} café {i}<br />\n"
    for split in ("train", "test")
    for label in ("pos", "neg", "unsup")
    for i in range(3)
    if (split, label) != ("test", "unsup")
}


def expected(split):
    return [(f"{split} {label} café {i}<br />", label) for label in ("neg", "pos") for i in range(3)]


def rows(examples):
    return [(text, examples.label_names[i]) for text, i in zip(examples.texts, examples.labels, strict=True)]


def make_folder(root):
    for name, content in DOCUMENTS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (root / "aclImdb" / "README").write_text("about")
    return root / "aclImdb"


def pack(path, members, mode="w:gz"):
    """A tar archive of (name, content)."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def make_archive(root, names=tuple(DOCUMENTS)[::-1]):
    return pack(root / "aclImdb_v1.tar.gz", [(name, DOCUMENTS[name].encode()) for name in names])
