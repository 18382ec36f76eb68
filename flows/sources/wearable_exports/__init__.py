"""Exports that people have of their wearables, as files below `wearable_exports/<person_id>/`.

Apple Health, Fitbit (Google Takeout), Garmin and Oura downloads and the REST summaries of
open-wearables; RADAR-base topics (CSV) name their people themselves. Each value becomes part of a
wearable day and joins what other devices say of it.
"""
