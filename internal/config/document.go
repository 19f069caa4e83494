package config

import (
	"fmt"
	"regexp"
	"strings"
)

const introduction = `<!-- Generated from internal/config/settings.go by "go generate ./internal/config". -->
# Configuration

` + "`nar-p2pd`" + ` needs no configuration. Its settings come from four places; a later one wins:

1. the defaults below,
2. one TOML file: the one named by ` + "`--config`" + ` or ` + "`$NAR_P2P_CONFIG`" + `, else the first that exists of
   ` + "`$XDG_CONFIG_HOME/nar-p2p/config.toml`" + ` (` + "`~/.config/nar-p2p/config.toml`" + `) and ` + "`/etc/nar-p2p/config.toml`" + `,
3. environment variables,
4. flags.

A key that is not listed here is an error, in the file as in the environment. In environment variables the items of a list
are separated by blanks or commas; a flag for a list may be repeated, and an empty value makes the list empty. A list that is given
replaces the default, it does not add to it. Sizes are bytes with an optional unit (B, KiB, MiB, GiB, TiB); durations
have units (` + "`500ms`, `5s`" + `); paths are absolute.

At SIGHUP, or ` + "`p2pctl config reload`" + `, the settings are read again. Those that are marked *live* below count at once, for everything that
begins from then on; transfers under way go on. Which of the others have changed, and so need a restart, is said; and with a mistake
in them nothing changes. What a key of the past had vouched for is not believed any more; what a rule for sharing newly forbids does
not exist for peers any more, though records of it stay in the DHT for up to 48 hours; and what it newly allows is there once the store has been read
again, which takes some seconds for 100,000 paths.

`

const upstreamSection = `## Upstreams

Each upstream is a table of the list ` + "`upstream`" + `:

` + "```toml" + `
[[upstream]]
url = "https://cache.nixos.org"

[[upstream]]
url = "https://cache.example.org"
priority = 10
public_keys = ["example-1:…"]
netrc = "/etc/nix/netrc"
include = ["acme-*"]
` + "```" + `

[metadata.md](metadata.md) tells in which order they are asked, and for how long one that fails is left alone.

| key | meaning |
| --- | --- |
`

const interfaceSection = `
## Interfaces

Each entry is a table of the list ` + "`interface`" + `. The first that matches an interface counts; where none does, all is done there.

` + "```toml" + `
[[interface]] # these as if there were no list
match = ["wg*", "tailscale0", "en*"]

[[interface]] # whatever else there is
match = ["*"]
lan = false
mdns = false
share = false
` + "```" + `

A connection is on the interface by which the kernel sends to the peer, and on the one whose address the peer has
connected to: both must allow what is done. A relayed one is where its relay is. A Wi-Fi has the same name everywhere, and
many have the same addresses: to name what is trusted, and everything else by ` + "`*`" + `, is the safer way round. Fetching is
not concerned: what comes is checked wherever it comes from. Who is told what this machine looks for is, in profile
` + "`lan`" + `: neighbours alone are, so nobody where ` + "`lan`" + ` is false.

| key | meaning |
| --- | --- |
`

const scheduleSection = `
## Schedule

Each entry is a table of the list ` + "`schedule`" + `. It counts by local time, on the clock on the wall: where that is put
back an hour comes twice. The first entry that covers the moment counts, and where none does ` + "`p2p.upload_limit`" + ` and
` + "`fetch.download_limit`" + ` do. ` + "`p2pctl status`" + ` shows what counts now, and until when.

` + "```toml" + `
p2p.upload_limit = "10MiB/s"

[[schedule]] # when people work
days = ["mon-fri"]
from = "08:00"
to = "18:00"
upload = "1MiB/s"
download = "20MiB/s"

[[schedule]] # the nights, to the morning of the next day
from = "23:00"
to = "06:00"
upload = "none"
` + "```" + `

| key | meaning |
| --- | --- |
`

// Reference describes every key, in Markdown: docs/configuration.md.
func Reference() string {
	var b strings.Builder
	b.WriteString(introduction)
	table := ""
	for _, s := range settings(defaults()) {
		section, _, nested := strings.Cut(s.name, ".")
		if nested && section != table {
			table = section
			fmt.Fprintf(&b, "## [%s]\n\n", table)
		}
		if !nested && table != "" {
			table = ""
			fmt.Fprintf(&b, "## %s\n\n", s.name)
		}
		fmt.Fprintf(&b, "### `%s`\n\n%s\n\n", s.name, s.doc)
		fmt.Fprintf(&b, "- %s, default %s\n", s.kind(), defaultText(s))
		fmt.Fprintf(&b, "- `$%s`, `--%s`", s.env(), s.flag())
		if s.live {
			b.WriteString(", *live*")
		}
		b.WriteString("\n\n")
	}
	b.WriteString(upstreamSection)
	for _, key := range new(Upstream).keys() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", key.name, key.doc)
	}
	b.WriteString(interfaceSection)
	for _, key := range new(Interface).keys() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", key.name, key.doc)
	}
	b.WriteString(scheduleSection)
	for _, key := range new(scheduleEntry).keys() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", key.name, key.doc)
	}
	return b.String()
}

// manualHead and manualTail stand around what Reference says.
const (
	manualHead = "# NAME\n\nnar-p2p.toml - settings of nar-p2pd\n\n# DESCRIPTION\n\n"
	manualTail = "\n# SEE ALSO\n\n**nar-p2pd**(8), **p2pctl-config**(1), **p2pctl-config-check**(1)\n"
)

// link is one of Markdown, to another document.
var link = regexp.MustCompile(`\[[^\]]*\]\(([^)#]*)[^)]*\)`)

// Manual is Reference as the Markdown of a man page, nar-p2p.toml(5).
func Manual() string {
	_, text, _ := strings.Cut(Reference(), "\n# Configuration\n\n")
	text = link.ReplaceAllString(text, "docs/$1")
	return manualHead + strings.Replace(text, "\n### ", "\n# KEYS\n\n### ", 1) + manualTail
}

func defaultText(s setting) string {
	given := s.texts()
	switch {
	case len(given) > 0:
		return "`" + strings.Join(given, "`, `") + "`"
	case s.unset != "":
		return s.unset
	case s.isList():
		return "empty"
	default:
		return "unset"
	}
}
