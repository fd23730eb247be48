"""What a run ships in ``model/``: which model is whose, and what its outputs mean."""

from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

from multitune.errors import UserError
from multitune.models.fetching import fetched
from multitune.tasks import TASKS, Task, name_of

KIND = "multitune_task"
"""The key of a model's config.json that names its kind of task."""
CONFIG = "config.json"


def sign(config: PretrainedConfig, task: Task) -> None:
    """Write the kind of task into a model's configuration; its labels are there already."""
    setattr(config, KIND, name_of(task))


def shipped(model: Path) -> dict[str, Task]:
    """The tasks of a run's models, from their own configurations, whatever data are there now.

    Returns:
        Language -> the task of the model that it alone has, in the folder of that name; or "" -> that of the one model.

    Raises:
        UserError: no model, a damaged configuration, or one that names no kind of task or no labels.
    """
    if (model / CONFIG).exists():
        return {"": _task(model)}
    folders = sorted(file.parent for file in model.glob(f"*/{CONFIG}"))
    if not folders:
        raise UserError(f"{model}: holds no model; a finished run with save_model: true has one")
    return {folder.name: _task(folder) for folder in folders}


def _task(folder: Path) -> Task:
    config = fetched(str(folder), AutoConfig.from_pretrained)
    name = getattr(config, KIND, None)
    if name not in TASKS:
        raise UserError(f"{folder / CONFIG}: {KIND} is {name!r}; it must name a kind of task: {', '.join(TASKS)}")
    labels = TASKS[name].labels_in(config)
    if len(set(labels)) < len(labels) or not all(isinstance(label, str) for label in labels):
        raise UserError(f"{folder / CONFIG}: id2label must give each number a text of its own")
    return TASKS[name](labels)
