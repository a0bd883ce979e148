namespace Causeway.Benchmarks;

/// <summary>Something that a program does in a guest.</summary>
/// <param name="Name">What the results call it.</param>
/// <param name="Kind">What it is about: metadata, data, mix or none.</param>
/// <param name="Before">What comes before and is not measured; the share is mounted anew before that.</param>
/// <param name="Command">What is measured, in the share.</param>
/// <param name="IsAgain">Whether the share stays mounted: what the guest knows from the row before it may use.</param>
internal sealed record GuestRow(string Name, string Kind, string Before, string Command, bool IsAgain = false)
{
    /// <summary>Makes what is needed in the guest's own memory: the archive of a tree, and a program for reading and writing.</summary>
    public const string Prepare = """
        mkdir -p /tmp/make/tree /tmp/empty
        cd /tmp/make
        cat >make.py <<'PROGRAM'
        import os, random
        random.seed(1)
        words = ["alpha", "beta", "gamma", "delta", "omega"]
        for d in range(40):
            os.makedirs(f"tree/d{d:02}", exist_ok=True)
            for f in range(25):
                text = "".join(f"int {random.choice(words)}_{random.randrange(10**6)};\n" for _ in range(random.randrange(10, 160)))
                with open(f"tree/d{d:02}/f{f:02}.c", "w") as file:
                    file.write(text)
        PROGRAM
        python3 make.py
        tar cf /tmp/tree.tar tree
        rm -r tree
        cat >/tmp/io.py <<'PROGRAM'
        # io.py FILE read|write SIZE COUNT random|sequential: prints microseconds.
        import os, random, sys, time
        path, what, size, count, order = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
        random.seed()
        file = os.open(path, os.O_RDONLY if what == "read" else os.O_WRONLY)
        places = os.fstat(file).st_size // size
        offsets = random.sample(range(places), count) if order == "random" else range(count)
        data = os.urandom(size)
        began = time.monotonic_ns()
        if what == "read":
            for offset in offsets:
                if len(os.pread(file, size, offset * size)) != size:
                    sys.exit("a short read")
        else:
            for offset in offsets:
                if os.pwrite(file, data, offset * size) != size:
                    sys.exit("a short write")
        os.close(file)
        print((time.monotonic_ns() - began) // 1000)
        PROGRAM
        """;

    /// <summary>Makes what is needed in a share.</summary>
    public const string PrepareShare = """
        mkdir repository && cd repository
        tar xf /tmp/tree.tar
        git init -q . && git config user.name guest && git config user.email guest && git add . && git commit -q -m tree
        git status --porcelain
        cd ..
        mkdir project unpacked
        for i in $(seq 12); do
            echo "#include \"h$((i + 1)).h\"" >project/h$i.h
            seq 40 | sed "s/.*/static inline int h${i}_&(int x) { return x * & + $i; }/" >>project/h$i.h
        done
        seq 40 | sed 's/.*/static inline int last_&(int x) { return x - &; }/' >project/h13.h
        for i in 1 2 3; do echo "#include \"h1.h\"
        int part$i(int x) { return h1_$i(last_$i(x)); }" >project/c$i.c; done
        echo 'int part1(int), part2(int), part3(int);
        int main(void) { return part1(1) + part2(2) + part3(3) == 0; }' >project/main.c
        dd if=/dev/urandom of=file bs=1M count=32 status=none
        """;

    private const string Compile =
        "cd project; for f in c1 c2 c3 main; do gcc -c $f.c -o $f.o; done; gcc -o program c1.o c2.o c3.o main.o; ./program";

    /// <summary>The rows, in the order in which a round runs them.</summary>
    public static IReadOnlyList<GuestRow> All { get; } =
    [
        new("unpack", "metadata", "", "tar xf /tmp/tree.tar -C unpacked"),
        // What starting the programs of the next rows takes: no share has a part in it.
        new("start", "none", "", "test $(find /tmp/empty -type f | wc -l) = 0"),
        new("find", "metadata", "", "test $(find repository/tree -type f | wc -l) = 1000"),
        new("find-stat", "metadata", "", "test $(find repository/tree -type f -size -1000 | wc -l) = 1000"),
        new("find-again", "metadata", "", "test $(find repository/tree -type f -size -1000 | wc -l) = 1000", IsAgain: true),
        new("git-status", "metadata", "", "test -z \"$(GIT_OPTIONAL_LOCKS=0 git -C repository status --porcelain)\""),
        new("git-again", "metadata", "", "test -z \"$(GIT_OPTIONAL_LOCKS=0 git -C repository status --porcelain)\"", IsAgain: true),
        new("grep", "mix", "", "! grep -r nothing-has-this repository/tree"),
        new("delete", "metadata", "", "rm -r unpacked/tree"),
        new("compile", "mix", "rm -f project/*.o project/program", Compile),
        new("read-4k", "data", "", "python3 /tmp/io.py file read 4096 2000 random"),
        new("read-1m", "data", "", "python3 /tmp/io.py file read 1048576 32 sequential"),
        new("write-4k", "data", "", "python3 /tmp/io.py file write 4096 2000 random"),
        new("write-1m", "data", "", "python3 /tmp/io.py file write 1048576 32 sequential"),
    ];

    /// <summary>The script that comes before a turn.</summary>
    public string ScriptBefore(string folder, string mount) => $"""
        {(IsAgain ? "" : $"umount {folder}; {mount}")}
        cd {folder}
        {Before}
        """;

    /// <summary>The script of a turn: prints microseconds, those of a program that measures by itself or else of all.</summary>
    public string Script(string folder) => $$"""
        cd {{folder}}
        began=$EPOCHREALTIME
        printed=$({{Command}})
        ended=$EPOCHREALTIME
        echo "$printed" | grep -x '[0-9][0-9]*' || echo $((${ended/./} - ${began/./}))
        """;
}
