-- Replaces the day, so that a second try, or a second run of the same day, changes nothing.
CREATE TABLE IF NOT EXISTS sales (
  day TEXT, shop TEXT, items INTEGER, cents INTEGER, PRIMARY KEY (day, shop)
);
DELETE FROM sales WHERE day = :day;
INSERT INTO sales
SELECT :day, json_extract(value, '$.shop'), json_extract(value, '$.items'),
       json_extract(value, '$.items') * :cents
FROM json_each(:orders);
SELECT shop, items, cents FROM sales WHERE day = :day ORDER BY cents DESC, shop;
