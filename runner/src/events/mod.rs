//! What happens in a task, and how the API server hears of it.
