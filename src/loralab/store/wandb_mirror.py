"""Weights & Biases: the page's id is the run's hash, so that a resumed run continues its page."""

import contextlib
import os
from pathlib import Path
from typing import Any

from loralab.store.mirror import Ending, Page, Place

__all__ = ["WandbMirror", "wandb_mode"]


class WandbMirror:
    """A run's page in W&B, online, or offline in <store>/wandb for `wandb sync`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.run: Any = None

    def start(self, *, resumed: bool) -> Place:
        """`resume="allow"` continues a page of this id, and begins one where there is none."""
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        from loralab.compat.wandb import quiet_settings

        page = self.page
        page.store.mkdir(parents=True, exist_ok=True)
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            self.run = wandb.init(
                id=page.run_id,
                name=page.name,
                config=page.config,
                dir=str(page.store),
                mode=wandb_mode() if page.mode == "auto" else page.mode,  # type: ignore[arg-type]
                resume="allow",
                project=page.project,
                entity=page.entity,
                group=page.group,
                tags=page.tags,
                settings=quiet_settings(),
            )
        if self.run.url:
            return Place(str(self.run.url), str(self.run.project_url))
        folder = Path(self.run.dir).parent
        every = f"{folder.parent}; `cd {page.store} && wandb sync` uploads what is there"
        return Place(f"{folder}; `wandb sync {folder}` uploads it", every)

    def there(self) -> None:
        """None: W&B itself drops the steps that a page has already."""

    def log(self, step: int, values: dict[str, float], at: float) -> None:
        self.run.log(values, step=step)

    def finish(self, ending: Ending) -> None:
        self.run.summary.update({**ending.metrics, "status": ending.status})
        self.run.finish(exit_code=int(ending.status in ("failed", "interrupted")))


def wandb_mode() -> str:
    """`online` where an API key is found (environment or netrc), else `offline`; WANDB_MODE takes precedence."""
    import netrc

    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return "online" if netrc.netrc().authenticators(host) else "offline"
    except (FileNotFoundError, netrc.NetrcParseError):
        return "offline"
