"""What to do when a person may be in danger, regardless of this system's answer."""

from serving.settings import Settings

#: The safe default, where an institution sets no text of its own (CRISIS_GUIDANCE).
GUIDANCE = (
    "If this person may be in immediate danger, act now on your own judgement: follow your "
    "service's crisis procedure or call the emergency number (112, 911; crisis line 988 in the "
    "USA and Canada). Do not wait for this system."
)


def choose_guidance(settings: Settings) -> str:
    """Return the institution's crisis text with its escalation line, or the default."""
    text = settings.crisis_guidance or GUIDANCE
    line = settings.crisis_escalation_line
    return text if line is None or line in text else f"{text} Escalation line: {line}"
