"""What the report says: tables, sentences, pictures and pages, from what the stages found."""
