# The options of services.nar-p2pd that NixOS and nix-darwin share.
{ config, lib, pkgs, ... }:

let
  inherit (lib) literalExpression mkOption types;

  # setting is a key that may be left to the daemon's own default.
  setting = type: description: mkOption {
    type = types.nullOr type;
    default = null;
    inherit description;
  };

  cfg = config.services.nar-p2pd;
  file = (pkgs.formats.toml { }).generate "nar-p2p.toml" (import ./settings.nix lib cfg.settings);
in
{
  options.services.nar-p2pd = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to run nar-p2pd, a peer-to-peer binary cache for Nix.";
    };

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = literalExpression "pkgs.nar-p2p";
      description = "The package with nar-p2pd and p2pctl.";
    };

    addToSubstituters = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether Nix is to ask the daemon before it asks other substituters. Nix goes on to
        those where the daemon cannot help: `fallback` and a short `connect-timeout` are set,
        too, as far as they are not set elsewhere.
      '';
    };

    settings = mkOption {
      default = { };
      description = ''
        What is to be in `config.toml`. `docs/configuration.md` lists every key, and
        `p2pctl config show` what is in force.
      '';
      example = literalExpression ''
        {
          network = "acme";
          p2p.bootstrap = [ "/dns4/build-1.acme.example/tcp/8461/p2p/12D3KooW…" ];
          share.public_keys = [ "acme-1:…" ];
        }
      '';
      type = types.submodule {
        freeformType = (pkgs.formats.toml { }).type;
        options = {
          profile = setting (types.enum [ "off" "consume" "lan" "private" "public" ])
            "How much of the network the node takes part in.";
          network = setting (types.strMatching "[a-z0-9-]{1,32}")
            "The network to join: `public`, or the name of a private one.";
          metered = setting (types.enum [ "auto" "yes" "no" ])
            "Whether the connection is paid for by volume, so that nothing is shared over it.";
          role = setting (types.enum [ "node" "infrastructure" ])
            "Whether the node is there for this machine, or to help others connect.";
          routing = setting (types.enum [ "dht" "delegated" "both" ])
            "How to find out who provides what: by the DHT, or by asking `routing_endpoints`.";
          log.level = setting (types.enum [ "debug" "info" "warn" "error" ])
            "The least severe messages to log.";
          substituter = {
            listen = mkOption {
              type = types.strMatching ".+:[0-9]+";
              default = "127.0.0.1:8460";
              description = "The TCP address on which Nix reaches the daemon.";
            };
            priority = mkOption {
              type = types.ints.between 0 1000;
              default = 30;
              description = "Nix asks the substituter with the lowest number first; cache.nixos.org has 40.";
            };
          };
          p2p = {
            listen = mkOption {
              type = types.listOf types.str;
              default = [
                "/ip4/0.0.0.0/tcp/8461"
                "/ip4/0.0.0.0/udp/8461/quic-v1"
                "/ip6/::/tcp/8461"
                "/ip6/::/udp/8461/quic-v1"
              ];
              description = "The multiaddrs on which peers reach the node.";
            };
            bootstrap = setting (types.listOf (types.strMatching "/.+/p2p/[A-Za-z0-9]+"))
              "Multiaddrs, with peer IDs, of the nodes through which to join the network.";
            upload_limit = setting (types.strMatching "none|[0-9]+ ?(B|[KMGT]iB)?/s")
              "How much is sent to peers in a second, in all, such as `10MiB/s`.";
            psk_file = setting types.str
              "A file with the pre-shared key of a named network. Pass it by `credentials`, to keep it out of the store.";
          };
          share.public_keys = setting (types.listOf types.str)
            "Only paths with a valid signature of one of these keys leave the machine.";
          trust.public_keys = mkOption {
            type = types.listOf types.str;
            default = lib.unique (config.nix.settings.trusted-public-keys or [ ]);
            defaultText = literalExpression "config.nix.settings.trusted-public-keys";
            description = "The keys whose signatures make a record count.";
          };
          trust.threshold = setting (types.ints.between 1 100)
            "How many different trusted keys must have signed a record.";
        };
      };
    };

    checkConfig = mkOption {
      type = types.bool;
      default = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
      defaultText = literalExpression "pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform";
      description = ''
        Whether the daemon's own check of its settings is part of building the system: a mistake
        that no type tells then ends the build, in the daemon's words. Files that the settings name
        are not looked at. To be switched off where `environmentFile` has what is missing.
      '';
    };

    configFile = mkOption {
      type = types.path;
      internal = true;
      readOnly = true;
      description = "The settings as a file.";
    };
  };

  config.services.nar-p2pd.configFile =
    if !cfg.checkConfig then file
    else
      pkgs.runCommand "nar-p2p.toml" { passthru = { inherit file; }; } ''
        HOME=$PWD ${cfg.package}/bin/p2pctl config check ${file}
        cp ${file} $out
      '';
}
