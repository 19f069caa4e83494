# What Nix makes of the daemon among its substituters.
lib: { listen, priority, ... }:

let
  # Whoever listens on all addresses is reached at the nearest.
  port = builtins.head (builtins.match ".+:([0-9]+)" listen);
  everywhere = builtins.match "0\\.0\\.0\\.0:.*|\\[::]:.*" listen != null;
  url = "http://${if everywhere then "127.0.0.1:${port}" else listen}";

  # priorityOf is what Nix sorts a substituter by, as far as its URL or its name tells;
  # else null.
  priorityOf = substituter:
    let set = builtins.match ".*[?&]priority=([0-9]+).*" substituter;
    in
    if substituter == url then priority
    else if set != null then lib.toInt (builtins.head set)
    else if lib.hasPrefix "https://cache.nixos.org" substituter then 40
    else null;
in
{
  inherit url;

  # asked lists those that Nix asks before the daemon, as far as it is known.
  asked = substituters:
    let
      go = before: list:
        if list == [ ] then [ ]
        else
          let
            s = builtins.head list;
            p = priorityOf s;
            first = p != null && (p < priority || p == priority && before);
          in
          lib.optional (first && s != url) s ++ go (before && s != url) (builtins.tail list);
    in
    go true substituters;
}
