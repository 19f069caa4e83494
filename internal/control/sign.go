package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// MaxRecords is how many paths Records takes at once. One with 4,000
	// references has a record of 250 KB, so they fit into maxAnswer.
	MaxRecords = 32
	// maxSignatures bounds the signatures of one request; they fit into maxBody.
	maxSignatures = 256
)

// Signer is the part of a node that keeps signatures. The secret key is never
// sent to it.
type Signer interface {
	// Records returns what is to be known of paths before they are signed, for
	// each in their order.
	Records(ctx context.Context, paths []nix.StorePath) []Record
	// Sign keeps signatures that key has made of the paths' records, and shares
	// the paths if it may. It returns an outcome for each, in their order, and
	// what is to be done where the paths are not shared for want of a setting.
	Sign(ctx context.Context, key narinfo.PublicKey, signatures []Signature) (outcomes []Signed, hint string)
}

// Record is a path of the store before it is signed.
type Record struct {
	// Info is nil where Err says why there is none.
	Info *narinfo.Info
	// Refusal says why the node keeps no signature of the path; "" if it does.
	Refusal string
	// Accepted is true if a key that the node trusts or shares for has signed the
	// path.
	Accepted bool
	Err      error
}

// Signature is one of a path's record.
type Signature struct {
	Path nix.StorePath
	narinfo.Signature
}

// Signed is what became of a signature.
type Signed struct {
	// NotShared says why peers do not get the path all the same, or is nil.
	NotShared error
	// Err says why the signature was not kept, or is nil.
	Err error
}

// RecordsResponse has one result for each path of a PathsRequest, in its order.
type RecordsResponse struct {
	Results []RecordResult `json:"results"`
}

// RecordResult is a Record as JSON.
type RecordResult struct {
	PathResult
	// Narinfo is the record as text.
	Narinfo  string `json:"narinfo,omitempty"`
	Refusal  string `json:"refusal,omitempty"`
	Accepted bool   `json:"accepted,omitempty"`
}

// SignRequest holds signatures of one key.
type SignRequest struct {
	// PublicKey is as in trusted-public-keys.
	PublicKey  string          `json:"publicKey"`
	Signatures []SignatureText `json:"signatures"`
}

// SignatureText is a Signature as JSON.
type SignatureText struct {
	Path string `json:"path"`
	// Signature is as on a Sig line.
	Signature string `json:"signature"`
}

// SignResponse has one result for each signature of the request, in its order.
type SignResponse struct {
	Results []SignResult `json:"results"`
	// Hint says what is to be done for the paths to be shared.
	Hint string `json:"hint,omitempty"`
}

// SignResult is a Signed as JSON.
type SignResult struct {
	PathResult
	NotShared string `json:"notShared,omitempty"`
}

func (h *handler) records(r *http.Request) (any, error) {
	paths, err := readPaths(r, MaxRecords)
	if err != nil {
		return nil, err
	}
	response := &RecordsResponse{Results: make([]RecordResult, len(paths))}
	for i, record := range h.node.Records(r.Context(), paths) {
		result := RecordResult{PathResult: pathResult(paths[i], record.Err), Refusal: record.Refusal, Accepted: record.Accepted}
		if record.Err == nil {
			result.Narinfo = string(record.Info.Bytes())
		}
		response.Results[i] = result
	}
	return response, nil
}

func (h *handler) sign(r *http.Request) (any, error) {
	var request SignRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return nil, badRequest("request: %v", err)
	}
	if len(request.Signatures) > maxSignatures {
		return nil, badRequest("%d signatures in one request are more than %d", len(request.Signatures), maxSignatures)
	}
	key, err := narinfo.ParsePublicKey(request.PublicKey)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	signatures := make([]Signature, len(request.Signatures))
	for i, s := range request.Signatures {
		path, pathErr := nix.ParseStorePath(s.Path)
		signature, sigErr := narinfo.ParseSignature(s.Signature)
		if err := errors.Join(pathErr, sigErr); err != nil {
			return nil, badRequest("%v", err)
		}
		signatures[i] = Signature{path, signature}
	}
	outcomes, hint := h.node.Sign(r.Context(), key, signatures)
	response := &SignResponse{Results: make([]SignResult, len(signatures)), Hint: hint}
	for i, outcome := range outcomes {
		result := SignResult{PathResult: pathResult(signatures[i].Path, outcome.Err)}
		if outcome.NotShared != nil {
			result.NotShared = withoutPath(outcome.NotShared, signatures[i].Path)
		}
		response.Results[i] = result
	}
	return response, nil
}

// Records asks for the records of up to MaxRecords paths, to be signed.
func (c *Client) Records(ctx context.Context, paths []nix.StorePath) ([]Record, error) {
	var response RecordsResponse
	if err := c.get(ctx, http.MethodPost, "/v1/records", newPathsRequest(paths), &response); err != nil {
		return nil, err
	}
	if len(response.Results) != len(paths) {
		return nil, errors.New("answer of nar-p2pd: not one record for each path")
	}
	records := make([]Record, len(paths))
	for i, result := range response.Results {
		r := &records[i]
		r.Refusal, r.Accepted = result.Refusal, result.Accepted
		switch {
		case result.NotFound:
			r.Err = narstore.ErrNotFound
		case result.Error != "":
			r.Err = errors.New(result.Error)
		default:
			r.Info, r.Err = narinfo.Parse([]byte(result.Narinfo))
		}
		if r.Err == nil && r.Info.StorePath != paths[i] {
			return nil, errors.New("answer of nar-p2pd: the record of another path than was asked for")
		}
	}
	return records, nil
}

// Sign has signatures kept that key has made. It returns a result for each, as
// many as there are before an error, and the node's hint.
func (c *Client) Sign(ctx context.Context, key narinfo.PublicKey, signatures []Signature) (results []SignResult, hint string, err error) {
	for asked := false; len(signatures) > 0 || !asked; asked = true { // the hint is wanted in any case
		some := signatures[:min(maxSignatures, len(signatures))]
		signatures = signatures[len(some):]
		request := SignRequest{PublicKey: key.String(), Signatures: make([]SignatureText, len(some))}
		for i, s := range some {
			request.Signatures[i] = SignatureText{s.Path.String(), s.String()}
		}
		var response SignResponse
		if err := c.get(ctx, http.MethodPost, "/v1/signatures", request, &response); err != nil {
			return results, hint, err
		}
		results, hint = append(results, response.Results...), response.Hint
	}
	return results, hint, nil
}
