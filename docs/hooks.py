"""What the site needs beside docs/: the page and the pictures of benchmarks/, under the links that the pages have."""

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent


def on_files(files, config):
    """Adds benchmarks/README.md and its pictures."""
    for path in [ROOT / "benchmarks/README.md", *sorted((ROOT / "benchmarks/results").glob("*.png"))]:
        files.append(File(str(path.relative_to(ROOT)), str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown, page, **_):
    """In the repository benchmarks/ lies beside docs/; on the site it lies in it."""
    return markdown.replace("](../benchmarks/", "](benchmarks/") if "/" not in page.file.src_uri else markdown
