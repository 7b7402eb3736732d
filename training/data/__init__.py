"""From a file to `input_ids` and `labels`.

    readers/         a file, files, a pattern, a folder or a Hub name → raw rows with their places
    formats/         a raw row → Conversation | Completion | Text | Preference
    cleaning/        duplicates, quality, private data, control tokens
    chat_template/   a conversation → text, and the characters that the assistant wrote
    tokens/          text → input_ids and labels with an exact loss mask; the store on disk
    split/           which rows are used, which are held out, in which order
    report/          what an inspection tells: findings with repairs, statistics, preview
    findings.py      what can be wrong with rows, and what repairs it
    check.py         every row looked at without a tokenizer
    prepare.py       all of it: select, split, tokenise, store
    local_source.py  what can be known of a dataset before its rows are read

`data` is the `DataGroup` of a spec. Progress goes to `report(message, fraction)`, and `should_stop()` is
asked every few hundred rows. Modules import nothing heavier than the standard library and pydantic; pyarrow,
zstandard, datasets, jinja2, tokenizers, rensa and numpy are imported when they are first needed.
"""
