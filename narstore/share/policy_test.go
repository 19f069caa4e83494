package share_test

import (
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

func TestPolicy(t *testing.T) {
	cache, team, other := secretKey(t, "cache"), secretKey(t, "team"), secretKey(t, "other")
	public := func(keys ...narinfo.SecretKey) (out []narinfo.PublicKey) {
		for _, k := range keys {
			out = append(out, k.Public())
		}
		return out
	}
	hello := newPath(t, "hello-2.12", []byte("hello"), cache, other)
	built := newPath(t, "own-1.0", []byte("own"), team)
	built.info.Ultimate = true
	unsigned := newPath(t, "own-2.0", []byte("own"))
	huge := newPath(t, "huge", nil)
	huge.info.NARSize = chunk.MaxNARSize + 1
	sign(huge.info, cache)
	drv := newPath(t, "hello-2.12.drv", []byte("hello"), cache)

	for _, tc := range []struct {
		name            string
		policy          share.Policy
		path            *path
		shared, askable bool
	}{
		{"zero policy", share.Policy{}, hello, false, false},
		{"one key", share.Policy{Keys: public(cache)}, hello, true, true},
		{"one of the keys", share.Policy{Keys: public(team, cache)}, hello, true, true},
		{"other key", share.Policy{Keys: public(team)}, hello, false, false},
		{"own build of a team that shares its builds", share.Policy{Keys: public(team)}, built, true, true},
		{"own build on the public network", share.Policy{Keys: public(cache)}, built, false, false},
		{"unsigned", share.Policy{Keys: public(cache, team, other)}, unsigned, false, false},
		{"derivation", share.Policy{Keys: public(cache)}, drv, false, false},
		{"excluded", share.Policy{Keys: public(cache), Exclude: []string{"x", "hello-*"}}, hello, false, false},
		{"excluded by its whole name only", share.Policy{Keys: public(cache), Exclude: []string{"hello", "ello-2.12", "*2.1"}}, hello, true, true},
		{"malformed exclusion", share.Policy{Keys: public(cache), Exclude: []string{"[", "x"}}, hello, false, false},
		{"of the largest size", share.Policy{Keys: public(cache), MaxNARSize: 5}, hello, true, true},
		{"too large for peers", share.Policy{Keys: public(cache), MaxNARSize: chunk.MaxNARSize + 1}, huge, false, true},
		{"too large to upload", share.Policy{Keys: public(cache), MaxNARSize: 4}, hello, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.policy.Check(tc.path.info); (err == nil) != tc.shared {
				t.Errorf("Check = %v; want shared = %t", err, tc.shared)
			}
			if got := tc.policy.Askable(tc.path.info.Narinfo()); got != tc.askable {
				t.Errorf("Askable = %t, want %t", got, tc.askable)
			}
		})
	}
}

func TestPolicyValidate(t *testing.T) {
	for _, tc := range []struct {
		exclude []string
		ok      bool
	}{
		{nil, true},
		{[]string{"*-debug", "linux-?.*", "[a-c]*"}, true},
		{[]string{"*", "[a-"}, false},
		{[]string{"a\\"}, false},
	} {
		p := share.Policy{Exclude: tc.exclude}
		if err := p.Validate(); (err == nil) != tc.ok {
			t.Errorf("Validate of %q = %v; want ok = %t", tc.exclude, err, tc.ok)
		}
	}
}
