using System.Globalization;

namespace Causeway.EndToEnd;

public abstract partial class GuestTests
{
    [Fact]
    public async Task A_tree_of_5000_files_is_unpacked_compared_and_deleted()
    {
        const int files = 5000;
        string source = Path.Combine(fixture.Folder, "tree");
        MakeTree(source, files);
        await HostCommand.BashAsync(fixture.Folder, $"tar --create --format=posix --file='{HostDirectory}/tree.tar' --directory=tree .");

        await GuestAsync("mkdir tree; tar --extract --file=tree.tar --directory=tree; sync", seconds: 300);

        // On the host all contents are compared; reading them all back would take an emulated guest minutes, so it reads some.
        string expected = await HostCommand.BashAsync(source, Metadata(".") + Contents(".", "*"));
        string unpacked = await HostAsync(Metadata("tree") + Contents("tree", "*"));
        Assert.Equal(WithoutDirectorySizes(expected), WithoutDirectorySizes(unpacked));
        await AssertSameAsync(Metadata("tree"), seconds: 300);
        await AssertSameAsync(Contents("tree", "*7"), seconds: 300);

        await GuestAsync("rm -r tree", seconds: 300);
        Assert.Equal(["tree.tar"], Directory.GetFileSystemEntries(HostDirectory).Select(Path.GetFileName));
        Directory.Delete(source, recursive: true);
    }

    [Fact]
    public async Task A_directory_holds_10000_entries()
    {
        await GuestPythonAsync(
            """
            for n in range(10000):
                os.close(os.open('entry-%d' % n, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            """,
            seconds: 300);

        IEnumerable<string> expected = Enumerable.Range(0, 10_000).Select(n => $"entry-{n}").Order(StringComparer.Ordinal);
        Assert.Equal(expected, Names(Directory.GetFileSystemEntries(HostDirectory)));
        Assert.Equal(expected, Names((await GuestAsync("ls -U")).Split('\n', StringSplitOptions.RemoveEmptyEntries)));

        // Deleting while reading is where directory offsets go wrong.
        Assert.Equal("5000\n", await GuestAsync("find . -name '*[02468]' -delete; ls -U | wc -l", seconds: 300));
        Assert.Equal(
            expected.Where(name => (name[^1] - '0') % 2 == 1), Names(Directory.GetFileSystemEntries(HostDirectory)));

        static IEnumerable<string> Names(IEnumerable<string> paths) =>
            paths.Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal);
    }

    [Fact]
    public async Task A_deep_tree_is_walked_and_moved()
    {
        await GuestAsync("""
            path=.
            for depth in $(seq 60); do path=$path/directory-at-depth-$depth; done
            mkdir -p $path
            echo bottom >$path/file
            mv directory-at-depth-1 moved
            [ "$(cat "$(find moved -type f)")" = bottom ]
            """);

        await AssertSameAsync("find . -type f -exec sha256sum {} + ; find . | wc -l");
    }

    // The same files in each run: sizes, modes and times from the number.
    private static void MakeTree(string root, int files)
    {
        DateTime time = DateTime.Parse("2020-02-02T02:02:02.123456Z", CultureInfo.InvariantCulture).ToUniversalTime();
        byte[] content = new byte[9000];
        new Random(2).NextBytes(content);
        for (int number = 0; number < files; number++)
        {
            string directory = Path.Combine(root, $"d{number % 7}", $"d{number % 91}");
            Directory.CreateDirectory(directory);
            string file = Path.Combine(directory, $"file-{number}");
            File.WriteAllBytes(file, content[..(number * 37 % content.Length)]);
            File.SetUnixFileMode(file, number % 3 == 0 ? (UnixFileMode)0b111_101_101 : (UnixFileMode)0b110_100_000);
            File.SetLastWriteTimeUtc(file, time.AddSeconds(number));
        }
    }

    /// <summary>Prints names, kinds, sizes, modes, owners, times, link counts and targets of a tree.</summary>
    private static string Metadata(string directory) =>
        $@"cd {directory}; find . -printf '%P|%y|%s|%m|%U:%G|%T@|%n|%l\n' | sort; cd - >/dev/null; ";

    private static string Contents(string directory, string name) =>
        $"cd {directory}; find . -type f -name '{name}' -print0 | sort -z | xargs -0 sha256sum; cd - >/dev/null; ";

    // A directory's size depends on how it came about.
    private static IEnumerable<string> WithoutDirectorySizes(string manifest) =>
        from line in manifest.Split('\n')
        let fields = line.Split('|')
        select fields.Length < 8 || fields[1] != "d" ? line : $"{fields[0]}|d|{string.Join('|', fields[3..])}";
}
