-- A row is a database of the server. CREATE and DROP take no parameters, so the server writes the statement to run.

-- name: create
SELECT format('CREATE DATABASE %I TEMPLATE %I', $1::text, $2::text);

-- name: drop
SELECT format('DROP DATABASE IF EXISTS %I WITH (FORCE)', $1::text);

-- name: exists
SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1);
