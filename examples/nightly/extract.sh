# Prints and hands over the orders of a day: extract.sh DAY SHOP...
# It makes them up from the day, so that the same day always gives the same orders.
set -eu
day=$1
shift
seed=$(printf %s "$day" | tr -d -)
orders=
for shop in "$@"; do
  seed=$(((seed * 31 + 7) % 9973))
  items=$((seed % 40 + 1))
  echo "$day: $shop sold $items"
  orders="$orders${orders:+, }{\"shop\": \"$shop\", \"items\": $items}"
done
echo "{\"orders\": [$orders]}" > "$GRAMPUS_OUTPUT"
