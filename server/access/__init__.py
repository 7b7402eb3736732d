"""Who may use a server over HTTP: by the one token, or by those of an OAuth issuer, with scopes."""
