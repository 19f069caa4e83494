# nar-p2pd on macOS with nix-darwin: an agent of the user who is logged in, which is
# enough to read the store.
{ config, lib, ... }:

let
  cfg = config.services.nar-p2pd;
  inherit (import ./substituter.nix lib cfg.settings.substituter) url;
in
{
  imports = [ ./options.nix ];

  config = lib.mkIf cfg.enable {
    nix.settings = lib.mkIf cfg.addToSubstituters {
      substituters = lib.mkBefore [ url ];
      fallback = lib.mkDefault true;
      connect-timeout = lib.mkDefault 5;
      narinfo-cache-negative-ttl = lib.mkDefault 60;
    };

    environment.systemPackages = [ cfg.package ];

    launchd.user.agents.nar-p2pd.serviceConfig = {
      # launchd knows no way to name a file in the user's home, but the shell does.
      ProgramArguments = [
        "/bin/sh"
        "-c"
        ''exec ${cfg.package}/bin/nar-p2pd --config=${cfg.configFile} 2>>"$HOME/Library/Logs/nar-p2pd.log"''
      ];
      RunAtLoad = true;
      KeepAlive.SuccessfulExit = false;
      ExitTimeOut = 45;
      ProcessType = "Background";
    };
  };
}
