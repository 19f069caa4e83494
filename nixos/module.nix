# nar-p2pd on NixOS. The unit with its sandbox is the package's own, the same as on
# other systems; the module adds what the configuration says.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkDefault mkIf mkOption types;

  cfg = config.services.nar-p2pd;
  settings = cfg.settings;
  inherit (import ./substituter.nix lib settings.substituter) url asked;

  # portsOf lists the ports of one protocol among the addresses for peers.
  portsOf = protocol: lib.unique (lib.concatMap
    (address:
      let port = builtins.match ".*/${protocol}/([0-9]+)(/.*)?" address;
      in lib.optional (port != null) (lib.toInt (builtins.head port)))
    settings.p2p.listen);

  substituters = config.nix.settings.substituters or [ ];
  first = asked substituters;

  cacheKey = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
  ownKeys = lib.filter (key: key != cacheKey) (if settings.share.public_keys == null then [ ] else settings.share.public_keys);
  network = if settings.network == null then "public" else settings.network;

  # secrets are the files with secrets that settings name; unpassed are those of
  # credentials that there are not.
  secrets = lib.filter (file: file != null) ([ settings.p2p.psk_file ]
    ++ lib.concatMap (u: [ (u.netrc or null) (u.token_file or null) ]) (settings.upstream or [ ]));
  passed = map (name: "/run/credentials/nar-p2pd.service/${name}") (lib.attrNames cfg.credentials);
  unpassed = lib.filter (file: lib.hasPrefix "/run/credentials/nar-p2pd.service/" file && !lib.elem file passed) secrets;
  inStore = lib.filter (lib.hasPrefix builtins.storeDir) secrets;
in
{
  imports = [ ./options.nix ];

  options.services.nar-p2pd = {
    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether peers may connect from outside: opens the ports of `settings.p2p.listen`, and
        5353/udp, by which nodes on the local network find each other.
      '';
    };

    environmentFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/run/secrets/nar-p2p.env";
      description = "A file with further settings as variables, such as `NAR_P2P_UPSTREAM` with a password.";
    };

    credentials = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = { psk = "/run/secrets/nar-p2p-psk"; };
      description = ''
        Files that only root can read and the daemon needs, by name. Settings name them as
        `/run/credentials/nar-p2pd.service/NAME`.
      '';
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = ownKeys == [ ] || network != "public";
        message = "services.nar-p2pd.settings.share.public_keys: builds of your own would be published to strangers; set settings.network to a name";
      }
      {
        assertion = settings.profile != "private" || network != "public";
        message = "services.nar-p2pd.settings.profile is private: set settings.network to the name of your network";
      }
      {
        assertion = settings.profile != "public" || network == "public";
        message = "services.nar-p2pd.settings.profile is public, but settings.network names a private network: leave the profile out";
      }
      {
        assertion = !(cfg.openFirewall && settings.profile == "off");
        message = "services.nar-p2pd.openFirewall opens ports for peers, which settings.profile = \"off\" has none of";
      }
      {
        assertion = !lib.hasSuffix ":0" settings.substituter.listen;
        message = "services.nar-p2pd.settings.substituter.listen needs a port that Nix knows, and not 0";
      }
      {
        assertion = !(settings ? state_dir) && !(settings ? control && settings.control ? socket);
        message = "services.nar-p2pd.settings: state_dir and control.socket are /var/lib/nar-p2p and /run/nar-p2p/control.sock, which the unit makes";
      }
      {
        assertion = inStore == [ ];
        message = "services.nar-p2pd.settings: ${toString inStore} is in the Nix store, which everybody can read: use credentials";
      }
      {
        assertion = unpassed == [ ];
        message = "services.nar-p2pd.settings: ${toString unpassed} would not be there: name it in credentials";
      }
    ];

    warnings =
      lib.optional (cfg.addToSubstituters && !lib.elem url substituters)
        "services.nar-p2pd: nix.settings.substituters is set to others by force, so that Nix does not ask ${url}"
      ++ lib.optional (cfg.addToSubstituters && first != [ ])
        "services.nar-p2pd: Nix asks ${toString first} first, by its priority or by the order where that is the same; settings.substituter.priority is ${toString settings.substituter.priority}, and peers are then asked only for what is not there";

    nix.settings = mkIf cfg.addToSubstituters {
      substituters = lib.mkBefore [ url ];
      fallback = mkDefault true;
      connect-timeout = mkDefault 5;
      narinfo-cache-negative-ttl = mkDefault 60;
    };

    environment.systemPackages = [ cfg.package ];
    environment.etc."nar-p2p/config.toml".source = cfg.configFile;

    # Whoever is in it may use p2pctl.
    users.groups.nar-p2p = { };

    systemd.packages = [ cfg.package ];
    systemd.sockets.nar-p2pd = {
      wantedBy = [ "sockets.target" ];
      # The empty one takes back the unit's own.
      listenStreams = [ "" settings.substituter.listen ];
    };
    systemd.services.nar-p2pd = {
      wantedBy = [ "multi-user.target" ];
      restartTriggers = [ cfg.configFile ];
      serviceConfig = {
        LoadCredential = lib.mapAttrsToList (name: file: "${name}:${file}") cfg.credentials;
      } // lib.optionalAttrs (cfg.environmentFile != null) {
        EnvironmentFile = cfg.environmentFile;
      };
    };

    networking.firewall = mkIf cfg.openFirewall {
      allowedTCPPorts = portsOf "tcp";
      allowedUDPPorts = portsOf "udp" ++ [ 5353 ];
    };
  };
}
