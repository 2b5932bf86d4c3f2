"""Pack a built site into one zip file, the same bytes for the same site.

Usage: python tools/zip_site.py FOLDER FILE.zip
"""

import sys
import zipfile
from pathlib import Path


def main(folder: str, target: str) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(Path(folder).rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in name.parts):
                entry = zipfile.ZipInfo(f"{Path(target).stem}/{name.as_posix()}")  # dated 1980, whatever the file's
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)


if __name__ == "__main__":
    main(*sys.argv[1:])
