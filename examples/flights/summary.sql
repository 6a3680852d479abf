-- One row for each month, hour and airport: enough for the heat map and for the totals.
-- A percentage can only be averaged with its weights, so this gives counts, not percentages.
SELECT month,
       hour,
       origin,
       count(*)                                 AS flights,
       sum(disrupted)                           AS disrupted,
       sum(cancelled)                           AS cancelled,
       sum(diverted)                            AS diverted,
       sum(disrupted - cancelled - diverted)    AS late
FROM flights
GROUP BY month, hour, origin
ORDER BY month, hour, origin;
