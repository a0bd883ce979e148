using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace Causeway.Cli;

/// <summary>What <c>causeway vm</c> was told.</summary>
internal sealed record VirtualMachineOptions
{
    /// <summary>The directory to share.</summary>
    public required string Directory { get; init; }

    /// <summary>The name the guest mounts it by.</summary>
    public string Tag { get; init; } = "causeway";

    /// <summary>The size of the DAX window, as the daemon reads it; null for none.</summary>
    public string? Dax { get; init; }

    /// <summary>Request queues.</summary>
    public int Queues { get; init; } = 1;

    /// <summary>The guest's memory, in QEMU's notation.</summary>
    public string Memory { get; init; } = "1G";

    /// <summary>The guest's processors.</summary>
    public int Processors { get; init; } = 2;

    /// <summary>QEMU's program.</summary>
    public required string Qemu { get; init; }

    /// <summary>What the guest boots from, and everything else: options of QEMU.</summary>
    public IReadOnlyList<string> More { get; init; } = [];
}

/// <summary>The two command lines that a virtual machine with a share takes.</summary>
internal static class VirtualMachine
{
    /// <summary>QEMU's device with a shared memory region; there is none before 11.1.</summary>
    public const string WindowDevice = "vhost-user-test-device-pci";

    // virtio 1.4, 5: the number of virtio-fs among the devices, and the bytes of its configuration: a tag and a number of queues.
    private const int FileSystemDevice = 26;
    private const int ConfigurationBytes = 40;

    /// <summary>The arguments of <c>causeway</c>, for the daemon.</summary>
    public static string[] DaemonArguments(VirtualMachineOptions options, string socket)
    {
        List<string> arguments =
        [
            "serve", "--shared-dir", options.Directory, "--socket-path", socket,
            "--num-request-queues", Number(options.Queues), "--tag", options.Tag,
        ];
        if (options.Dax is { } size)
        {
            arguments.AddRange(["--exclusive", $"--dax={size}"]);
        }

        return [.. arguments];
    }

    /// <summary>The arguments of QEMU.</summary>
    public static string[] QemuArguments(VirtualMachineOptions options, string socket)
    {
        // FORGET has a queue of its own. With the generic device the daemon says what the tag is.
        string device = options.Dax is null
            ? $"vhost-user-fs-pci,chardev=share,tag={Escape(options.Tag)},num-request-queues={Number(options.Queues)},queue-size=1024"
            : $"{WindowDevice},chardev=share,virtio-id={FileSystemDevice},num_vqs={Number(options.Queues + 1)},"
                + $"config_size={ConfigurationBytes},vq_size=1024";
        string machine = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? "q35" : "virt";

        // The guest's memory is a file that the daemon maps too: that is what vhost-user is about.
        return
        [
            "-accel", "kvm", "-accel", "tcg", "-cpu", "max", "-smp", Number(options.Processors), "-m", options.Memory,
            "-object", $"memory-backend-memfd,id=memory,size={options.Memory},share=on", "-machine", $"{machine},memory-backend=memory",
            "-chardev", $"socket,id=share,path={Escape(socket)}", "-device", device, .. options.More,
        ];
    }

    /// <summary>A command as a shell reads it.</summary>
    public static string Quote(string program, IEnumerable<string> arguments)
    {
        var line = new StringBuilder();
        foreach (string word in arguments.Prepend(program))
        {
            bool isPlain = word.Length > 0 && !word.AsSpan().ContainsAnyExcept(s_plain);
            line.Append(line.Length == 0 ? "" : " ");
            line.Append(isPlain ? word : $"'{word.Replace("'", "'\\''", StringComparison.Ordinal)}'");
        }

        return line.ToString();
    }

    /// <summary>Finds a program on PATH.</summary>
    /// <returns>Its path; null when it is not there.</returns>
    public static string? Find(string name)
    {
        if (name.Contains('/', StringComparison.Ordinal))
        {
            return File.Exists(name) ? name : null;
        }

        string path = Environment.GetEnvironmentVariable("PATH") ?? "";
        return path.Split(':', StringSplitOptions.RemoveEmptyEntries)
            .Select(folder => Path.Combine(folder, name))
            .FirstOrDefault(File.Exists);
    }

    private static readonly System.Buffers.SearchValues<char> s_plain = System.Buffers.SearchValues.Create(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./,:+@%");

    // A comma ends a value in an option of QEMU; two are one.
    private static string Escape(string value) => value.Replace(",", ",,", StringComparison.Ordinal);

    private static string Number(int value) => value.ToString(CultureInfo.InvariantCulture);
}
