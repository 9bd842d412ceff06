"""OpenAI's Responses API as values: requests, their translation to chats, and the events and items of answers."""
