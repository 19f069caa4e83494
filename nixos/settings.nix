# What is said of the settings: keys that were left to the daemon are left out, and
# lists that are empty because nobody has set them.
lib: settings:

let
  said = lib.filterAttrsRecursive (_: value: value != null) settings;
in
if settings.trust.public_keys == [ ] then said // { trust = removeAttrs said.trust [ "public_keys" ]; } else said
