# Settings good and bad for the module, and what must come of them. Evaluates to
# { failures, settings, script }: the names of the cases that went wrong, what the good
# ones write to config.toml, and how that is checked when a system is built. Further good ones are in a folder of modules, such as the
# test makes of the profiles in docs/install.md.
{ lib, profiles ? null }:

let
  # surroundings is what NixOS itself defines.
  surroundings = {
    nix.settings = {
      substituters = lib.mkAfter [ "https://cache.nixos.org/" ];
      trusted-public-keys = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
    };
    warnings = [ ];
    assertions = [ ];
  };

  evaluate = definitions: lib.evaluate ../module.nix ([ surroundings ] ++ definitions);
  node = settings: evaluate [{ services.nar-p2pd = { enable = true; inherit settings; }; }];
  failed = config: builtins.filter (a: !a.assertion) config.assertions;
  contains = part: text: builtins.match ".*${part}.*" text != null;
  written = config: config.services.nar-p2pd.configFile.file.settings;

  # good is what must evaluate without a complaint, and hold.
  good = {
    defaults = {
      config = node { };
      holds = c:
        c.nix.settings.substituters == [ "http://127.0.0.1:8460" "https://cache.nixos.org/" ]
        && c.nix.settings.fallback && c.nix.settings.connect-timeout == 5
        && c.systemd.sockets.nar-p2pd.listenStreams == [ "" "127.0.0.1:8460" ]
        && !(c ? networking.firewall.allowedTCPPorts)
        && c.users.groups ? nar-p2p
        && contains "p2pctl config check /nix/store/" c.services.nar-p2pd.configFile.script;
    };
    privateNetwork = {
      config = evaluate [{
        services.nar-p2pd = {
          enable = true;
          credentials.psk = "/run/secrets/psk";
          settings = {
            network = "acme";
            p2p.psk_file = "/run/credentials/nar-p2pd.service/psk";
            share.public_keys = [ "acme-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
            upstream = [{ url = "https://cache.nixos.org"; }];
            trust.threshold = 1;
          };
        };
      }];
      holds = c: (written c).network == "acme";
    };
    notASubstituter = {
      config = evaluate [{ services.nar-p2pd = { enable = true; addToSubstituters = false; }; }];
      holds = c: c.nix.settings.substituters == [ "https://cache.nixos.org/" ] && !(c.nix.settings ? fallback);
    };
    firewall = {
      config = evaluate [{
        services.nar-p2pd = {
          enable = true;
          openFirewall = true;
          settings.p2p.listen = [ "/ip4/0.0.0.0/tcp/9000" "/ip4/0.0.0.0/udp/9001/quic-v1" "/ip6/::/tcp/9000" ];
        };
      }];
      holds = c: c.networking.firewall.allowedTCPPorts == [ 9000 ] && c.networking.firewall.allowedUDPPorts == [ 9001 5353 ];
    };
    secrets = {
      config = evaluate [{
        services.nar-p2pd = {
          enable = true;
          environmentFile = "/run/secrets/env";
          credentials.psk = "/run/secrets/psk";
        };
      }];
      holds = c: c.systemd.services.nar-p2pd.serviceConfig == { EnvironmentFile = "/run/secrets/env"; LoadCredential = [ "psk:/run/secrets/psk" ]; };
    };
    ownTimeout = {
      config = evaluate [{ services.nar-p2pd.enable = true; nix.settings.connect-timeout = 2; }];
      holds = c: c.nix.settings.connect-timeout == 2;
    };
    trustedByNix = {
      config = evaluate [{
        services.nar-p2pd.enable = true;
        nix.settings.trusted-public-keys = [ "acme-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      }];
      holds = c: builtins.length (written c).trust.public_keys == 2;
    };
    everywhere = {
      config = node { substituter = { listen = "0.0.0.0:8470"; deadline = "3s"; }; };
      holds = c: builtins.head c.nix.settings.substituters == "http://127.0.0.1:8470"
        && c.systemd.sockets.nar-p2pd.listenStreams == [ "" "0.0.0.0:8470" ];
    };
    anotherBehind = {
      config = evaluate [{ services.nar-p2pd.enable = true; nix.settings.substituters = [ "https://b.example?priority=30" ]; }];
      holds = c: builtins.length c.nix.settings.substituters == 3;
    };
    unchecked = {
      config = evaluate [{ services.nar-p2pd = { enable = true; checkConfig = false; environmentFile = "/run/secrets/env"; }; }];
      holds = c: c.services.nar-p2pd.configFile ? settings;
    };
  };

  documented = if profiles == null then { } else
  builtins.mapAttrs (name: _: { config = evaluate [ (import (profiles + "/${name}")) ]; holds = _: true; }) (builtins.readDir profiles);

  # refused is what an assertion must stop, with these words.
  refused = {
    ownKeyInPublic = { config = node { share.public_keys = [ "acme-1:x" ]; }; words = "published to strangers"; };
    privateWithoutName = { config = node { profile = "private"; }; words = "set settings.network"; };
    publicWithName = { config = node { profile = "public"; network = "acme"; }; words = "leave the profile out"; };
    anyPort = { config = node { substituter.listen = "127.0.0.1:0"; }; words = "needs a port"; };
    stateDir = { config = node { state_dir = "/srv/nar-p2p"; }; words = "which the unit makes"; };
    keyInStore = { config = node { p2p.psk_file = "${builtins.storeDir}/x-psk"; }; words = "use credentials"; };
    tokenInStore = {
      config = node { upstream = [{ url = "https://a.example"; token_file = "${builtins.storeDir}/x-token"; }]; };
      words = "use credentials";
    };
    noCredential = {
      config = node { network = "acme"; p2p.psk_file = "/run/credentials/nar-p2pd.service/psk"; };
      words = "name it in credentials";
    };
    portsForNobody = {
      config = evaluate [{ services.nar-p2pd = { enable = true; openFirewall = true; settings.profile = "off"; }; }];
      words = "has none of";
    };
  };

  # warned is what evaluates, with a warning in these words.
  warned = {
    cacheFirst = { config = node { substituter.priority = 50; }; words = "asks https://cache.nixos.org/ first"; };
    otherFirst = {
      config = evaluate [{ services.nar-p2pd.enable = true; nix.settings.substituters = [ "https://a.example?priority=10" ]; }];
      words = "asks https://a.example.priority=10 first";
    };
    sameFirst = {
      config = evaluate [{ services.nar-p2pd.enable = true; nix.settings.substituters = lib.mkOrder 400 [ "https://a.example?priority=30" ]; }];
      words = "asks https://a.example.priority=30 first";
    };
    notAsked = {
      config = evaluate [{ services.nar-p2pd.enable = true; nix.settings.substituters = lib.mkForce [ "https://cache.nixos.org" ]; }];
      words = "does not ask http://127.0.0.1:8460";
    };
  };

  # wrong is what must not evaluate.
  wrong = {
    profile = node { profile = "everybody"; };
    listen = node { substituter.listen = "8460"; };
    priority = node { substituter.priority = 2000; };
    network = node { network = "Acme!"; };
    uploadLimit = node { p2p.upload_limit = "10 megabytes"; };
    bootstrap = node { p2p.bootstrap = [ "192.0.2.1:8461" ]; };
    threshold = node { trust.threshold = "2"; };
    logLevel = node { log.level = "loud"; };
    enable = evaluate [{ services.nar-p2pd.enable = "yes"; }];
    unknown = evaluate [{ services.nar-p2pd = { enable = true; openFirewal = true; }; }];
  };

  # darwin tells whether the module for macOS does its part.
  darwin =
    let c = lib.evaluate ../darwin.nix [ surroundings { services.nar-p2pd.enable = true; } ];
    in
    builtins.head c.nix.settings.substituters == "http://127.0.0.1:8460"
    && contains "exec .*/bin/nar-p2pd --config=/nix/store/" (toString c.launchd.user.agents.nar-p2pd.serviceConfig.ProgramArguments);

  succeeds = value: let tried = builtins.tryEval (builtins.deepSeq value value); in tried.success && tried.value;
  evaluates = config: (builtins.tryEval (builtins.deepSeq { inherit (config) assertions warnings systemd nix; inherit (config.services) nar-p2pd; } true)).success;
  namesWhere = test: cases: builtins.filter (name: test cases.${name}) (builtins.attrNames cases);
in
{
  failures =
    namesWhere (case: !succeeds (failed case.config == [ ] && case.config.warnings == [ ] && case.holds case.config)) (good // documented)
    ++ namesWhere (case: !succeeds (map (a: contains case.words a.message) (failed case.config) == [ true ])) refused
    ++ namesWhere (case: !succeeds (map (contains case.words) case.config.warnings == [ true ])) warned
    ++ namesWhere evaluates wrong
    ++ (if succeeds (!((evaluate [ ]).nix.settings ? fallback)) then [ ] else [ "disabled" ])
    ++ (if succeeds darwin then [ ] else [ "darwin" ]);

  inherit (good.defaults.config.services.nar-p2pd.configFile) script;

  settings = builtins.mapAttrs (_: case: let file = case.config.services.nar-p2pd.configFile; in (file.file or file).settings) (good // documented);
}
