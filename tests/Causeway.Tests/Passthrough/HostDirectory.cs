using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.CompilerServices;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>
/// A directory of the host to be shared, deleted at the end. Its disposal fails the test when some descriptor of the process
/// still points into it.
/// </summary>
internal sealed class HostDirectory : IDisposable
{
    private readonly string _base;
    private readonly List<string> _mounts = [];

    public HostDirectory(string? parent = null)
    {
        _base = Directory.CreateTempSubdirectory("causeway-").FullName;
        if (parent is not null)
        {
            Directory.Delete(_base);
            _base = System.IO.Path.Combine(parent, System.IO.Path.GetFileName(_base));
            Directory.CreateDirectory(_base);
        }

        Directory.CreateDirectory(Path);
        File.WriteAllText(System.IO.Path.Combine(_base, "victim"), "outside");
    }

    /// <summary>The directory to share. Beside it lies a file called victim.</summary>
    public string Path => _base + "/share";

    public string Outside => _base + "/victim";

    public string this[string name] => $"{Path}/{name}";

    public PassthroughOptions Options => new() { SharedDirectory = Path };

    /// <summary>The tree that the test cases of the reference start from.</summary>
    public HostDirectory Fill()
    {
        File.WriteAllBytes(this["f"], [.. Enumerable.Range(0, 8192).Select(i => (byte)(i * 7))]);
        Directory.CreateDirectory(this["d"]);
        File.WriteAllText(this["d/x"], "x");
        File.CreateSymbolicLink(this["ln"], "f");
        File.CreateSymbolicLink(this["abs"], "/etc/passwd");
        File.CreateSymbolicLink(this["d/esc"], "../../victim");
        Host.Run("mkfifo", this["fifo"]);
        Host.Run("mknod", this["chr"], "c", "1", "3");
        return this;
    }

    /// <summary>Makes a file in each page of which every four bytes are the page's number.</summary>
    public void WriteNumberedPages(string name, int pages)
    {
        const int page = 4096;
        byte[] content = new byte[pages * page];
        for (int i = 0; i < content.Length; i += sizeof(int))
        {
            BitConverter.TryWriteBytes(content.AsSpan(i), i / page);
        }

        File.WriteAllBytes(this[name], content);
    }

    public void Mount(string target, params string[] arguments)
    {
        Host.Run("mount", [.. arguments, this[target]]);
        _mounts.Add(this[target]);
    }

    /// <summary>Descriptors of this process that point into the directory.</summary>
    public List<string> OpenDescriptors() =>
    [
        .. Directory.GetFiles("/proc/self/fd")
            .Select(TargetOf)
            .Where(target => target.StartsWith(_base, StringComparison.Ordinal)),
    ];

    public static string TargetOf(string link)
    {
        try
        {
            return File.ResolveLinkTarget(link, returnFinalTarget: false)?.FullName ?? "";
        }
        catch (IOException)
        {
            // Another test has closed it meanwhile.
            return "";
        }
    }

    public void Dispose()
    {
        List<string> left = OpenDescriptors();
        foreach (string mount in Enumerable.Reverse(_mounts))
        {
            Host.Run("umount", "-l", mount);
        }

        // Not by our own runtime, which cannot name files whose names are not UTF-8.
        Host.Run("rm", "-rf", _base);
        Assert.Empty(left);
    }
}

/// <summary>
/// What tests do on the host by its own programs. A process inherits ids, working directory and umask from the thread that
/// starts it, so they are started by a thread that no file system has changed.
/// </summary>
internal static class Host
{
    private static readonly BlockingCollection<Action> s_work = [];

    public static string Run(string program, params string[] arguments)
    {
        string output = "";
        string errors = "";
        int exitCode = -1;
        using var done = new ManualResetEventSlim();
        s_work.Add(() =>
        {
            try
            {
                using Process process = Start(program, arguments);
                output = process.StandardOutput.ReadToEnd();
                errors = process.StandardError.ReadToEnd();
                process.WaitForExit();
                exitCode = process.ExitCode;
            }
            catch (Exception exception)
            {
                errors = exception.Message;
            }

            done.Set();
        });
        done.Wait();
        Assert.True(exitCode == 0, $"{program} {string.Join(' ', arguments)}: {errors}");
        return output;
    }

    /// <summary>Starts a program whose end the caller waits for.</summary>
    public static Process StartClean(string program, params string[] arguments)
    {
        Process? process = null;
        using var done = new ManualResetEventSlim();
        s_work.Add(() =>
        {
            process = Start(program, arguments);
            done.Set();
        });
        done.Wait();
        return process!;
    }

#pragma warning disable CA2255 // Before any test, so that the thread inherits nothing from one.
    [ModuleInitializer]
#pragma warning restore CA2255
    internal static void StartThread() => new Thread(() =>
    {
        foreach (Action action in s_work.GetConsumingEnumerable())
        {
            action();
        }
    })
    {
        IsBackground = true,
        Name = "host programs",
    }.Start();

    private static Process Start(string program, string[] arguments) => Process.Start(
        new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
}
