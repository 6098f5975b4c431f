\set id random(1, 20000)
SELECT title FROM shop_book WHERE id = :id;
