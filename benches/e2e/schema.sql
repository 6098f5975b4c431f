CREATE TABLE shop_author (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE shop_book (
  id bigint PRIMARY KEY, title text NOT NULL, isbn text NOT NULL, price numeric(8, 2) NOT NULL, stock int NOT NULL,
  published date NOT NULL, language text NOT NULL, pages int NOT NULL, author_id bigint NOT NULL REFERENCES shop_author);
INSERT INTO shop_author SELECT n, 'Author ' || n FROM generate_series(1, 1000) n;
INSERT INTO shop_book SELECT n, 'Book ' || n, lpad(n::text, 13, '0'), n % 50, n % 100, DATE '2026-01-01' + n % 365, 'en', 100 + n % 400, 1 + n % 1000
  FROM generate_series(1, 20000) n;
CREATE INDEX ON shop_book (author_id);
ANALYZE;
