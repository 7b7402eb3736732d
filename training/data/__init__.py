"""From a file to `input_ids` and `labels`.

The steps, each usable by itself, in the order in which data takes them:

    sources     open_source(…)            a file, files, a pattern, a folder or a Hub name → rows, streamed
    formats     recognise(row)            a row → Conversation | Completion | Text | Preference
    check       check(data)               every row looked at without a tokenizer: counts and findings
    encode      Encoder(tokenizer, data)  a row → input_ids and labels, with an exact loss mask

Importing any of these brings in nothing heavier than the standard library and pydantic; pyarrow, zstandard,
datasets and tokenizers are imported when they are first needed.
"""
