"""The run as a person reads it in a terminal: one line per asset, the worker's own progress below it."""

import logging

import dagster as dg

FORMAT = "%(asctime)s  %(asset)-24s  %(text)s"


class _OneLine(logging.Formatter):
    """`12:30:01  lora_checkpoint  step 30/312  loss 1.2`, from a log line or a finished asset."""

    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", {})
        record.asset = meta.get("step_key") or "run"
        record.text = _finished(record) or meta.get("orig_message") or record.getMessage()
        return super().format(record)


def _finished(record: logging.LogRecord) -> str:
    """How a materialised asset was come by; empty for every other record.

    Told from the event that Dagster keeps anyway: a log line of its own would cost as much as all else of a cache hit.
    """
    event = getattr(record, "dagster_meta", {}).get("dagster_event")
    if event is None or not event.is_step_materialization:
        return ""
    found = event.step_materialization_data.materialization.metadata
    if not {"cache", "seconds", "made"} <= set(found):
        return ""
    return f"{found['cache'].value} ({found['seconds'].value:.1f} s of work, key {found['made'].value['key']})"


def _is_shown(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO or bool(_finished(record))


def _terminal(_: dg.InitLoggerContext) -> logging.Logger:
    """INFO and above, and finished assets: progress of assets and workers, without the engine's own events."""
    logger = logging.Logger("lorascope", level=logging.DEBUG)
    handler = logging.StreamHandler()
    handler.addFilter(_is_shown)
    handler.setFormatter(_OneLine(FORMAT, datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    return logger


terminal_logger = dg.LoggerDefinition(_terminal, description="One line per message, for terminals.")
