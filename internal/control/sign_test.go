package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// signer keeps a signature if it is one of the path's record.
type signer struct {
	node
	records map[nix.StorePath]*narinfo.Info
}

func (s *signer) Records(_ context.Context, paths []nix.StorePath) []control.Record {
	records := make([]control.Record, len(paths))
	for i, path := range paths {
		switch path.Name() {
		case "absent":
			records[i].Err = narstore.ErrNotFound
		case "broken":
			records[i].Err = errors.New("the disk is gone")
		case "other":
			records[i].Info = newRecord(path.HashPart(), "another")
		case "substituted":
			records[i] = control.Record{Info: s.records[path], Refusal: "not built here", Accepted: true}
		default:
			records[i].Info = s.records[path]
		}
	}
	return records
}

func (s *signer) Sign(_ context.Context, key narinfo.PublicKey, signatures []control.Signature) ([]control.Signed, string) {
	outcomes := make([]control.Signed, len(signatures))
	for i, sig := range signatures {
		if !key.Verify(s.records[sig.Path].Fingerprint(), sig.Signature) {
			outcomes[i].Err = errors.New("vouch: " + sig.Path.String() + ": wrong signature")
		} else {
			outcomes[i].NotShared = errors.New("share: " + sig.Path.String() + ": excluded")
		}
	}
	return outcomes, "change a setting"
}

func newRecord(part nix.HashPart, name string) *narinfo.Info {
	path, err := nix.NewStorePath(part, name)
	if err != nil {
		panic(err)
	}
	info := narstore.PathInfo{Path: path, NARHash: nix.NARHash{1}, NARSize: 120, References: []nix.StorePath{path}}
	return info.Narinfo()
}

func newSigner(names ...string) (s *signer, paths []nix.StorePath) {
	s = &signer{records: make(map[nix.StorePath]*narinfo.Info)}
	for i, name := range names {
		info := newRecord(nix.HashPart{byte(i)}, name)
		s.records[info.StorePath] = info
		paths = append(paths, info.StorePath)
	}
	return s, paths
}

func TestRecords(t *testing.T) {
	s, paths := newSigner("built", "substituted", "absent", "broken")
	records, err := newClient(t, s).Records(t.Context(), paths)
	if err != nil || len(records) != len(paths) {
		t.Fatalf("Records() = %d records, %v", len(records), err)
	}
	if r := records[0]; r.Err != nil || r.Refusal != "" || r.Accepted || r.Info.Fingerprint() != s.records[paths[0]].Fingerprint() {
		t.Errorf("record of what was built = %+v", r)
	}
	if r := records[1]; r.Err != nil || r.Refusal != "not built here" || !r.Accepted {
		t.Errorf("record of what was substituted = %+v", r)
	}
	if r := records[2]; !errors.Is(r.Err, narstore.ErrNotFound) || r.Info != nil {
		t.Errorf("record of what is absent = %+v, want ErrNotFound", r)
	}
	if r := records[3]; r.Err == nil || r.Err.Error() != "the disk is gone" {
		t.Errorf("record of what cannot be read = %+v", r)
	}
	// What is signed must be what was asked for.
	s, paths = newSigner("other")
	if _, err := newClient(t, s).Records(t.Context(), paths); err == nil || !strings.Contains(err.Error(), "the record of another path") {
		t.Errorf("Records() with that of another path = %v, want an error", err)
	}
}

func TestSign(t *testing.T) {
	key, err := narinfo.GenerateSecretKey("own-1")
	if err != nil {
		t.Fatal(err)
	}
	s, paths := newSigner("good", "bad")
	signatures := []control.Signature{
		{Path: paths[0], Signature: key.Sign(s.records[paths[0]].Fingerprint())},
		{Path: paths[1], Signature: key.Sign("something else")},
	}
	// More than fit into one request.
	for len(signatures) < 700 {
		signatures = append(signatures, signatures[0])
	}
	client := newClient(t, s)
	results, hint, err := client.Sign(t.Context(), key.Public(), signatures)
	if err != nil || len(results) != len(signatures) || hint != "change a setting" {
		t.Fatalf("Sign() = %d results, hint %q, %v", len(results), hint, err)
	}
	want := []control.SignResult{
		{PathResult: control.PathResult{Path: paths[0].String()}, NotShared: "excluded"},
		{PathResult: control.PathResult{Path: paths[1].String(), Error: "wrong signature"}},
	}
	if diff := cmp.Diff(want, results[:2]); diff != "" {
		t.Errorf("Sign() (-want +got):\n%s", diff)
	}
	if results, hint, err := client.Sign(t.Context(), key.Public(), nil); err != nil || len(results) != 0 || hint != "change a setting" {
		t.Errorf("Sign() of nothing = %v, hint %q, %v, want the hint alone", results, hint, err)
	}
}

func TestSignRequests(t *testing.T) {
	s, paths := newSigner("built")
	client := overSocket(t, serve(t, s))
	encode := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const key = "own-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
	one := control.SignatureText{Path: paths[0].String(), Signature: "own-1:AAAA"}
	for name, tt := range map[string]struct{ path, body, want string }{
		"many records":    {"/v1/records", encode(control.PathsRequest{Paths: slices.Repeat([]string{one.Path}, 33)}), "33 paths in one request are more than 32"},
		"no store path":   {"/v1/records", `{"paths": ["/etc/passwd"]}`, "is not in /nix/store"},
		"no JSON":         {"/v1/signatures", "signatures", "request: "},
		"no key":          {"/v1/signatures", `{}`, "public key"},
		"secret key":      {"/v1/signatures", `{"publicKey": "own-1:` + strings.Repeat("A", 86) + `=="}`, "public key"},
		"wrong signature": {"/v1/signatures", encode(control.SignRequest{PublicKey: key, Signatures: []control.SignatureText{one}}), "signature"},
		"wrong path":      {"/v1/signatures", encode(control.SignRequest{PublicKey: key, Signatures: []control.SignatureText{{Path: "x"}}}), "is not in /nix/store"},
		"many signatures": {
			"/v1/signatures", encode(control.SignRequest{PublicKey: key, Signatures: slices.Repeat([]control.SignatureText{one}, 257)}),
			"257 signatures in one request are more than 256",
		},
	} {
		t.Run(name, func(t *testing.T) {
			response, err := client.Post("http://nar-p2pd"+tt.path, "application/json", strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), tt.want) {
				t.Errorf("%s = %d %.200s, %v, want 400 with %q", tt.path, response.StatusCode, body, err, tt.want)
			}
		})
	}
}
