"""Room `paper`: the results as the paper tells them, each number beside the published one.

In: every other artifact. Does: tables 1 and 2, figures 1 to 3, the SAE's numbers, examples, claims with verdicts.
Out: `index.html`, `report.json`, `figures/`, `tables/`. Paper: all sections. No knobs: it only reports.
"""
