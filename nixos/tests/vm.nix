# On real NixOS machines: a provider, a relay, and a consumer behind a NAT. The
# upstream is cache.nixos.org, from which they are cut off: nothing leads out of the
# test. The consumer substitutes from the provider all the same.
{ testers, runCommand, nix, hello, package }:

let
  # The public key belongs to no secret of anybody: both are made for this test.
  keys = runCommand "keys" { nativeBuildInputs = [ nix ]; } ''
    mkdir $out
    nix-store --generate-binary-cache-key test-1 $out/secret $out/public
  '';

  node = settings: { pkgs, ... }: {
    imports = [ ../module.nix ];
    services.nar-p2pd = {
      enable = true;
      inherit package;
      openFirewall = true;
      environmentFile = "/etc/nar-p2p.env";
      settings = { network = "test"; } // settings;
    };
    systemd.sockets.nar-p2pd.wantedBy = pkgs.lib.mkForce [ ];
    systemd.services.nar-p2pd.wantedBy = pkgs.lib.mkForce [ ];
    nix.settings.substituters = pkgs.lib.mkForce [ "http://127.0.0.1:8460" ];
  };
in
testers.runNixOSTest {
  name = "nar-p2p";

  nodes = {
    relay = { virtualisation.vlans = [ 1 ]; imports = [ (node { role = "infrastructure"; }) ]; };
    provider = { virtualisation.vlans = [ 1 ]; imports = [ (node { }) ]; environment.systemPackages = [ hello ]; };
    router = {
      virtualisation.vlans = [ 1 2 ];
      networking.nat = { enable = true; externalInterface = "eth1"; internalInterfaces = [ "eth2" ]; };
    };
    consumer = { nodes, ... }: {
      virtualisation.vlans = [ 2 ];
      imports = [ (node { }) ];
      networking.defaultGateway = (builtins.head nodes.router.networking.interfaces.eth2.ipv4.addresses).address;
    };
  };

  testScript = ''
    import json

    start_all()
    public = open("${keys}/public").read().strip()

    def configure(machine, bootstrap=""):
        lines = [f"NAR_P2P_TRUST_PUBLIC_KEYS={public}", f"NAR_P2P_SHARE_PUBLIC_KEYS={public}"]
        if bootstrap:
            lines.append(f"NAR_P2P_P2P_BOOTSTRAP={bootstrap}")
        text = "\\n".join(lines)
        machine.succeed(f"printf '{text}\\n' > /etc/nar-p2p.env")
        machine.succeed("systemctl start nar-p2pd.socket nar-p2pd.service")
        machine.wait_for_open_port(8460)

    for machine in [relay, provider, router, consumer]:
        machine.wait_for_unit("multi-user.target")

    provider.succeed("nix --extra-experimental-features nix-command store sign -r -k ${keys}/secret ${hello}")
    configure(relay)
    addresses = json.loads(relay.succeed("p2pctl status --json"))["p2p"]["addresses"]
    bootstrap = ",".join(a for a in addresses if "/127." not in a)
    configure(provider, bootstrap)
    configure(consumer, bootstrap)

    with subtest("the sandbox is as tight as it was measured"):
        relay.succeed("systemd-analyze security --threshold=15 nar-p2pd.service")

    with subtest("cut off from the cache the consumer gets it from the provider"):
        provider.wait_until_succeeds("p2pctl provide ${hello}")
        consumer.fail("test -e ${hello}")
        consumer.wait_until_succeeds(
            f"nix-store --realise --option trusted-public-keys '{public}' ${hello}", timeout=300
        )
        consumer.succeed("${hello}/bin/hello")

    with subtest("the port answers while the daemon restarts"):
        consumer.succeed("systemctl restart --no-block nar-p2pd.service && curl --fail --max-time 60 http://127.0.0.1:8460/nix-cache-info")
  '';
}
