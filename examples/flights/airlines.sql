-- How each airline did; the most disrupted first.
SELECT carrier,
       count(*)                                 AS flights,
       sum(cancelled)                           AS cancelled,
       sum(diverted)                            AS diverted,
       sum(disrupted - cancelled - diverted)    AS late,
       sum(disrupted)                           AS disrupted
FROM flights
GROUP BY carrier
ORDER BY 1.0 * sum(disrupted) / count(*) DESC, carrier;
