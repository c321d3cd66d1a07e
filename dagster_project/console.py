"""The run as a person reads it in a terminal: one line per asset, the worker's own progress below it."""

import logging

import dagster as dg

FORMAT = "%(asctime)s  %(asset)-24s  %(text)s"


class _OneLine(logging.Formatter):
    """`12:30:01  lora_checkpoint  step 30/312  loss 1.2`, from Dagster's record of a log line."""

    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", {})
        record.asset = meta.get("step_key") or "run"
        record.text = meta.get("orig_message") or record.getMessage()
        return super().format(record)


def _terminal(_: dg.InitLoggerContext) -> logging.Logger:
    """INFO and above: progress of assets and workers, without the engine's own events."""
    logger = logging.Logger("lorascope", level=logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(FORMAT, datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    return logger


terminal_logger = dg.LoggerDefinition(_terminal, description="One line per message, for terminals.")
