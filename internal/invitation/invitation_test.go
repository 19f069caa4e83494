package invitation_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/internal/invitation"
)

const peerID = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"

func addrs(texts ...string) []ma.Multiaddr {
	var all []ma.Multiaddr
	for _, text := range texts {
		all = append(all, ma.StringCast(text+"/p2p/"+peerID))
	}
	return all
}

var invitations = map[string]struct {
	invitation.Invitation
	// word is frozen: invitations outlive versions.
	word string
}{
	"bare": {
		invitation.Invitation{Network: "team"},
		"narp2p1ar2gkylnaaad3yknfy",
	},
	"whole": {
		invitation.Invitation{
			Network:   "team-7",
			Bootstrap: addrs("/ip4/192.0.2.1/tcp/8461", "/ip4/192.0.2.1/udp/8461/quic-v1", "/dns4/node.example.org/tcp/8461"),
			Key:       bytes.Repeat([]byte{0xa5}, invitation.KeySize),
		},
		"narp2p1az2gkylnfu3qgmieyaaaeaigeeg2kazgaasaqaisea5wuj54z23killcuounaktpbvzwkmqvo4o6eq5ghlaerimllhncsnaeyaaaeamraiqq3tiduubsmabebaareib3nit3ztvwuqwwfi5i2avg6dltmuzbk5y54jb2mowajcqywwo2fe7dmedon5sgkltfpbqw24dmmuxg64thayqq3jideyacicabciqdw2rhxthlnjbnmkr2rubkn4gxgzjscv3r3ysduy5masfbrnm5ukibuws2ljnfuws2ljnfuws2ljnfuws2ljnfuws2ljnfuws2ljnfuws3nqgg6m",
	},
}

func TestRoundTrip(t *testing.T) {
	for name, tt := range invitations {
		if err := tt.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := tt.String(); got != tt.word {
			t.Errorf("%s: String() = %s, want %s", name, got, tt.word)
		}
		for _, word := range []string{tt.word, " " + tt.word + "\n"} {
			got, err := invitation.Parse(word)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(&tt.Invitation, got); diff != "" {
				t.Errorf("%s: Parse (-want +got)\n%s", name, diff)
			}
			if got.Secret() != (tt.Key != nil) {
				t.Errorf("%s: Secret() = %v", name, got.Secret())
			}
		}
	}
}

// A word that was copied wrongly is noticed, and never shown in an error: it may
// be a secret.
func TestEveryMistakeIsNoticed(t *testing.T) {
	word := invitations["whole"].word
	check := func(what, damaged string) {
		t.Helper()
		got, err := invitation.Parse(damaged)
		if err == nil {
			t.Errorf("%s: accepted as %v", what, got)
		} else if len(damaged) > 20 && strings.Contains(err.Error(), damaged[10:20]) {
			t.Errorf("%s: the error tells it: %v", what, err)
		}
	}
	for i := range word {
		other := byte('a')
		if word[i] == other {
			other = 'b'
		}
		check("another character", word[:i]+string(other)+word[i+1:])
		check("a character missing", word[:i]+word[i+1:])
		check("cut", word[:i])
	}
	for i := range len(word) - 1 {
		if word[i] != word[i+1] {
			check("two characters swapped", word[:i]+string(word[i+1])+string(word[i])+word[i+2:])
		}
	}
	check("a character more", word+"a")
	check("long", word+strings.Repeat("a", 1<<20))
	if _, err := invitation.Parse("narp2p2" + word[7:]); err == nil || !strings.Contains(err.Error(), "later version") {
		t.Errorf("version 2: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for name, i := range map[string]invitation.Invitation{
		"public":          {Network: "public"},
		"no name":         {},
		"name":            {Network: "My Team"},
		"no peer ID":      {Network: "team", Bootstrap: []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/1")}},
		"peer ID alone":   {Network: "team", Bootstrap: addrs("")},
		"17 addresses":    {Network: "team", Bootstrap: addrs(strings.Split(strings.Repeat("/ip4/192.0.2.1/tcp/1 ", 16)+"/ip4/192.0.2.1/tcp/1", " ")...)},
		"long address":    {Network: "team", Bootstrap: addrs("/dns4/" + strings.Repeat("a", 250) + "/tcp/1")},
		"key of 31 bytes": {Network: "team", Key: make([]byte, 31)},
	} {
		if err := i.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if got, err := invitation.Parse(i.String()); err == nil {
			t.Errorf("%s: parsed as %v", name, got)
		}
	}
}

// FuzzParse makes words of any bytes, in the way that the package describes.
func FuzzParse(f *testing.F) {
	alphabet := base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	f.Add([]byte("\x04team\x00\x00"))
	f.Add([]byte("\x04team\x01\x04\x04\x7f\x00\x00\x00"))
	for _, tt := range invitations {
		b, err := alphabet.DecodeString(tt.word[len("narp2p1"):])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:len(b)-4])
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		sum := sha256.Sum256(append([]byte("narp2p1"), payload...))
		word := "narp2p1" + alphabet.EncodeToString(slices.Concat(payload, sum[:4]))
		i, err := invitation.Parse(word)
		if err != nil {
			return
		}
		if err := i.Check(); err != nil {
			t.Errorf("Parse(%q) does not pass Check: %v", word, err)
		}
		if got := i.String(); got != word {
			t.Errorf("Parse(%q).String() = %q", word, got)
		}
	})
}
