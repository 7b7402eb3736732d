"""What a person clicks: pages over the same service. Nothing here loads a model or a training library.

serve        from options to a page that is served; tunnel: how others reach it
options      where it is and who may use it; passwords, session, rate_limit, guard, admit: what is refused
app          the table of addresses; desk: what every page has at hand
forms        fields of a form, from the definitions of the settings
look         templates and the files that a browser loads; the curve and its views are the dashboard's
live         runs as they move, as server-sent events; told: a run as its page tells it
wording      next steps as what to press
keep_upload  files that a browser sends; sources: what can be asked or exported
pages/       one file per page
"""
