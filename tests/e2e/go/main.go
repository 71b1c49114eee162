// A client of the audit log that knows only its specification: C2SP signed-note, tlog-checkpoint,
// tlog-cosignature and tlog-tiles, on the packages of Go's own checksum database. It shares no code
// with the node. Usage: client URL LOG_VKEY [COSIGNER_VKEY...]
//
// It opens the checkpoint with the log's key, counts the cosigners, reads every entry, and proves
// each one included, and some older trees to be prefixes, from tiles that it checks against the root.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

// cosigner verifies cosignature/v1 lines.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(c.key, []byte(signed), sig[8:])
}

func newCosigner(vkey string) cosigner {
	parts := strings.SplitN(vkey, "+", 3)
	material, err := base64.StdEncoding.DecodeString(parts[2])
	check(err)
	if material[0] != 4 {
		fail("not a cosigner's key: %s", vkey)
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), material...))
	hash := binary.BigEndian.Uint32(sum[:])
	if fmt.Sprintf("%08x", hash) != parts[1] {
		fail("key id of %s is wrong", vkey)
	}
	return cosigner{name: parts[0], hash: hash, key: ed25519.PublicKey(material[1:])}
}

// tiles reads tiles by C2SP paths; tlog's own have the height in them.
type tiles struct{ url string }

func (t tiles) Height() int                     { return tileHeight }
func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight), "tile/", 1)
		found = append(found, get(t.url+"/"+path))
	}
	return found, nil
}

func get(url string) []byte {
	answer, err := http.Get(url)
	check(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	check(err)
	if answer.StatusCode != 200 {
		fail("%s: %s", url, answer.Status)
	}
	return body
}

func readEntries(url string, size int64) [][]byte {
	var entries [][]byte
	for start := int64(0); start < size; start += 256 {
		tile := tlog.Tile{H: tileHeight, L: -1, N: start / 256, W: int(min(256, size-start))}
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/data/", tileHeight), "tile/entries/", 1)
		bundle := get(url + "/" + path)
		for len(bundle) > 0 {
			length := int(binary.BigEndian.Uint16(bundle))
			entries = append(entries, bundle[2:2+length])
			bundle = bundle[2+length:]
		}
	}
	if int64(len(entries)) != size {
		fail("%d entries in a log of %d", len(entries), size)
	}
	return entries
}

func main() {
	url := os.Args[1]
	log, err := note.NewVerifier(os.Args[2])
	check(err)
	verifiers := []note.Verifier{log}
	for _, vkey := range os.Args[3:] {
		verifiers = append(verifiers, newCosigner(vkey))
	}
	opened, err := note.Open(get(url+"/checkpoint"), note.VerifierList(verifiers...))
	check(err)
	signers := []string{}
	for _, sig := range opened.Sigs {
		signers = append(signers, sig.Name)
	}
	if signers[0] != log.Name() {
		fail("the log has not signed its checkpoint")
	}
	lines := strings.Split(opened.Text, "\n")
	var size int64
	_, err = fmt.Sscan(lines[1], &size)
	check(err)
	root, err := tlog.ParseHash(lines[2])
	check(err)

	entries := readEntries(url, size)
	reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tiles{url})
	for i, entry := range entries {
		if len(entries) > 2000 && i%257 != 0 && i < len(entries)-20 {
			continue
		}
		proof, err := tlog.ProveRecord(size, int64(i), reader)
		check(err)
		check(tlog.CheckRecord(proof, size, root, int64(i), tlog.RecordHash(entry)))
	}
	olds := 0
	for old := int64(1); old <= size; old = old*2 + 1 {
		oldRoot, err := tlog.TreeHash(old, reader)
		check(err)
		proof, err := tlog.ProveTree(size, old, reader)
		check(err)
		check(tlog.CheckTree(proof, size, root, old, oldRoot))
		olds++
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"origin": lines[0], "size": size, "signers": signers, "unknown": len(opened.UnverifiedSigs),
		"entries": len(entries), "older_trees": olds,
	}))
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}
