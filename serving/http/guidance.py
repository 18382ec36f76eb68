"""What to do when a person may be in danger, whatever this system answers."""

GUIDANCE = (
    "If this person may be in immediate danger, act now on your own judgement: follow your "
    "service's crisis procedure or call the emergency number (112, 911; crisis line 988 in the "
    "USA and Canada). Do not wait for this system."
)
