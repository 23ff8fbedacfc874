-- Whose pages may call: asked before every request of a browser that is not a simple one.

create index client_app_origins on client_app using gin (origins);
