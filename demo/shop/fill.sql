-- About eighteen thousand rows in a second. The same every time: no random().
INSERT INTO shop_publisher (name, city)
  SELECT 'Publisher ' || n, (ARRAY['Berlin', 'London', 'Prague', 'Turin', 'Oslo'])[1 + n % 5] FROM generate_series(1, 60) n;
INSERT INTO shop_author (name, country)
  SELECT 'Author ' || n, (ARRAY['DE', 'UK', 'CZ', 'IT', 'NO'])[1 + n % 5] FROM generate_series(1, 400) n;
INSERT INTO shop_tag (name) SELECT 'tag-' || n FROM generate_series(1, 50) n;
INSERT INTO shop_book (title, author_id, publisher_id, price, stock, blurb)
  SELECT 'Book ' || n, 1 + n * 7 % 400, 1 + n * 13 % 60, 5 + n % 40, n % 100, repeat('A sentence about book ' || n || '. ', 5)
  FROM generate_series(1, 2000) n;
INSERT INTO shop_book_tags (book_id, tag_id)
  SELECT b, 1 + (b * 3 + t * 11) % 50 FROM generate_series(1, 1500) b, generate_series(1, 2) t;
INSERT INTO shop_customer (name, email) SELECT 'Customer ' || n, 'customer' || n || '@example.org' FROM generate_series(1, 1000) n;
INSERT INTO shop_profile (customer_id, city, points) SELECT n, 'City ' || n % 30, n % 500 FROM generate_series(1, 1000) n;
INSERT INTO shop_review (book_id, customer_id, rating, text, created)
  SELECT 1 + n * 3 % 2000, 1 + n * 17 % 1000, 1 + n % 5, 'Review ' || n, TIMESTAMPTZ '2026-01-01 00:00Z' + n * INTERVAL '1 hour'
  FROM generate_series(1, 5000) n;
INSERT INTO shop_order (customer_id, created, state)
  SELECT 1 + n * 7 % 1000, TIMESTAMPTZ '2026-01-01 00:00Z' + n * INTERVAL '2 hours', 'paid' FROM generate_series(1, 1500) n;
INSERT INTO shop_orderline (order_id, book_id, quantity)
  SELECT 1 + n % 1500, 1 + n * 11 % 2000, 1 + n % 3 FROM generate_series(1, 4500) n;
INSERT INTO shop_note (content_type_id, object_id, text)
  SELECT t.id, 1 + n % 60, 'Note ' || n
  FROM generate_series(1, 300) n
  JOIN django_content_type t ON t.app_label = 'shop' AND t.model = (ARRAY['book', 'author', 'publisher'])[1 + n % 3] ORDER BY n;
INSERT INTO shop_job (state, payload) SELECT 'ready', 'payload ' || n FROM generate_series(1, 5000) n;
ANALYZE;
