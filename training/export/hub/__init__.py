"""An adapter or a merged model as a repository of the Hugging Face Hub."""
