"""The questions of PHQ-9 and GAD-7 and the meaning of their answers, in the published wording.

Both questionnaires are free to use without permission (Pfizer, phqscreeners.com). Sources:
Kroenke 2001 (J Gen Intern Med 16:606-613), Spitzer 2006 (Arch Intern Med 166:1092-1097).
"""

from feature_repo.instruments import FREQUENCY_LABELS, GAD7, PHQ9

LEAD = "Over the last 2 weeks, how often have you been bothered by any of the following problems?"

#: Words of the answers 0 to 3.
ANSWERS = [words.capitalize() for words in FREQUENCY_LABELS]

PHQ9_QUESTIONS = (
    "Little interest or pleasure in doing things",
    "Feeling down, depressed, or hopeless",
    "Trouble falling or staying asleep, or sleeping too much",
    "Feeling tired or having little energy",
    "Poor appetite or overeating",
    "Feeling bad about yourself, or that you are a failure or have let yourself or your family "
    "down",
    "Trouble concentrating on things, such as reading the newspaper or watching television",
    "Moving or speaking so slowly that other people could have noticed? Or the opposite, being so "
    "fidgety or restless that you have been moving around a lot more than usual",
    "Thoughts that you would be better off dead or of hurting yourself in some way",
)
GAD7_QUESTIONS = (
    "Feeling nervous, anxious or on edge",
    "Not being able to stop or control worrying",
    "Worrying too much about different things",
    "Trouble relaxing",
    "Being so restless that it is hard to sit still",
    "Becoming easily annoyed or irritable",
    "Feeling afraid as if something awful might happen",
)
QUESTIONS = {PHQ9.name: PHQ9_QUESTIONS, GAD7.name: GAD7_QUESTIONS}
