// Verifies a log over HTTP with nothing but golang.org/x/mod/sumdb and the log's verification key:
// the checkpoint's signature, every tile against its root, every entry against its leaf, and proofs that the log gives.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var base string

func fail(err error, what string) {
	if err != nil {
		fmt.Printf("%s: %v\n", what, err)
		os.Exit(1)
	}
}

func get(path string) []byte {
	response, err := http.Get(base + path)
	fail(err, path)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	fail(err, path)
	if response.StatusCode != 200 {
		fail(fmt.Errorf("status %d: %s", response.StatusCode, body), path)
	}
	return body
}

type tiles struct{}

func (tiles) Height() int { return 8 }

func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// tlog-tiles has no height in its paths.
func (tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(wanted))
	for i, tile := range wanted {
		data[i] = get("/v1/log/" + strings.Replace(tile.Path(), "tile/8/", "tile/", 1))
	}
	return data, nil
}

func parseHash(text string) tlog.Hash {
	hash, err := tlog.ParseHash(text)
	fail(err, text)
	return hash
}

func hashes(texts []string) []tlog.Hash {
	list := []tlog.Hash{}
	for _, text := range texts {
		list = append(list, parseHash(text))
	}
	return list
}

func main() {
	base = os.Args[1]
	verifier, err := note.NewVerifier(os.Args[2])
	fail(err, "key")
	signed, err := note.Open(get("/v1/log/checkpoint"), note.VerifierList(verifier))
	fail(err, "checkpoint")
	lines := strings.Split(signed.Text, "\n")
	if lines[0] != verifier.Name() {
		fail(fmt.Errorf("is %q", lines[0]), "origin")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	fail(err, "size")
	tree := tlog.Tree{N: size, Hash: parseHash(lines[2])}

	// A TileHashReader checks each tile against the root before it gives a hash of it.
	reader := tlog.TileHashReader(tree, tiles{})
	for first := int64(0); first < size; first += 256 {
		count := size - first
		path := tlog.Tile{H: 8, L: 0, N: first / 256, W: 256}
		if count < 256 {
			path.W = int(count)
		} else {
			count = 256
		}
		data := get("/v1/log/" + strings.Replace(path.Path(), "tile/8/0/", "tile/entries/", 1))
		for i := int64(0); i < count; i++ {
			length := int64(binary.BigEndian.Uint16(data))
			entry := data[2 : 2+length]
			data = data[2+length:]
			leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, first+i)})
			fail(err, "leaf")
			if tlog.RecordHash(entry) != leaf[0] {
				fail(fmt.Errorf("%d is not the leaf's", first+i), "entry")
			}
		}
		if len(data) != 0 {
			fail(fmt.Errorf("%d bytes too many", len(data)), "entries")
		}
	}

	proofs := 0
	for position := int64(1); position <= size; position += 1 + size/37 {
		for _, at := range []int64{position, (position + size) / 2, size} {
			var proof struct {
				LeafHash, RootHash, Entry string
				Hashes                    []string
			}
			fail(json.Unmarshal(get(fmt.Sprintf("/v1/log/proofs/inclusion?position=%d&size=%d", position, at)), &proof), "inclusion")
			entry, err := base64.StdEncoding.DecodeString(proof.Entry)
			fail(err, "entry")
			fail(tlog.CheckRecord(hashes(proof.Hashes), at, parseHash(proof.RootHash), position-1, tlog.RecordHash(entry)), "inclusion")

			var consistency struct {
				FromRootHash, ToRootHash string
				Hashes                   []string
			}
			fail(json.Unmarshal(get(fmt.Sprintf("/v1/log/proofs/consistency?from=%d&to=%d", at, size)), &consistency), "consistency")
			if parseHash(consistency.ToRootHash) != tree.Hash || consistency.FromRootHash != proof.RootHash {
				fail(fmt.Errorf("of %d to %d", at, size), "roots")
			}
			fail(tlog.CheckTree(hashes(consistency.Hashes), size, tree.Hash, at, parseHash(proof.RootHash)), "consistency")
			proofs += 2
		}
	}

	// The proof file: its hashes lead to the root of the checkpoint it ends with.
	file := get(fmt.Sprintf("/v1/log/proofs/inclusion?position=%d&format=tlog-proof", size))
	head, rest, _ := bytes.Cut(file, []byte("\n\n"))
	proof := strings.Split(string(head), "\n")
	if proof[0] != "c2sp.org/tlog-proof@v1" || proof[1] != fmt.Sprintf("index %d", size-1) {
		fail(fmt.Errorf("begins %q", proof[:2]), "proof file")
	}
	_, err = note.Open(rest, note.VerifierList(verifier))
	fail(err, "checkpoint of the proof file")
	last, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, size-1)})
	fail(err, "leaf")
	fail(tlog.CheckRecord(hashes(proof[2:]), size, tree.Hash, size-1, last[0]), "proof file")
	fmt.Printf("%d leaves, %d proofs\n", size, proofs)
}
