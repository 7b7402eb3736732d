"""OpenAI's fine-tuning interface over the same runs, for programs that use the `openai` package.

app.py      the routes, and what stands around every request
caller.py   the service, the paths and the files as one principal sees them
errors.py   every error in OpenAI's form
files.py    /v1/files                 upload.py         reads an upload, at most so large
jobs.py     /v1/fine_tuning/jobs      job_objects.py    a run as a job; job_events.py  its events
models.py   /v1/models                names.py          ids of jobs, names of tuned models
chat.py     /v1/chat/completions      chat_request.py   its parameters; answering.py  the run behind it
"""
