"""From a file to `input_ids` and `labels`.

    readers/         a file, files, a pattern, a folder or a Hub name → raw rows with their places
    formats/         a raw row → Conversation | Completion | Text | Preference
    cleaning/        duplicates, quality, private data, control tokens
    chat_template/   a conversation → text, and the characters that the assistant wrote
    tokens/          text → input_ids and labels with an exact loss mask; the store on disk
    split/           selection of rows, held-out rows, training order
    report/          inspection: findings with repairs, statistics, preview
    row_counts.py    numbers of rows in words
    findings.py      the kinds of problems of rows, and their repairs
    check.py         checks every row without a tokenizer
    prepare.py       the whole path: select, split, tokenise, store
    local_source.py  checks of a dataset before its rows are read

A new row format goes into formats/ (a name in messages.py, a case in recognise.py), a new file type into
readers/ (a case in sources.py), a new problem of rows into `findings.KINDS`.

`data` is the `DataGroup` of a spec. Progress goes to `report` as `Phase` events. `should_stop()` is called
every few hundred rows. At import, modules need only the standard library and pydantic; pyarrow, zstandard,
datasets, jinja2, tokenizers, rensa and numpy are imported when they are first needed.
"""
