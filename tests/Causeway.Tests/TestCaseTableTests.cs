using System.Reflection;
using System.Text.RegularExpressions;

namespace Causeway.Tests;

/// <summary>docs/test-cases.md says which test covers which case of the reference: it must be complete and must not lie.</summary>
public sealed partial class TestCaseTableTests
{
    /// <summary>How many cases each letter has. C has two more, 22a and 22b.</summary>
    private static readonly (char Letter, int Count)[] _cases =
    [
        ('I', 14), ('L', 23), ('U', 8), ('S', 8), ('C', 23), ('R', 9), ('O', 25), ('A', 13), ('D', 14), ('X', 18), ('T', 6), ('H', 14),
        ('P', 20), ('M', 15), ('K', 6),
    ];

    [Fact]
    public void Every_case_is_in_the_table_once()
    {
        IEnumerable<string> expected = _cases
            .SelectMany(one => Enumerable.Range(1, one.Count).Select(number => $"{one.Letter}{number}"))
            .Append("C22a").Append("C22b");

        Assert.Equal(expected.Order(), Rows().Select(row => row.Case).Order());
        Assert.Equal(218, Rows().Count());
    }

    [Fact]
    public void Every_row_names_a_test_or_a_reason() =>
        Assert.All(Rows(), row => Assert.True(row.Tests.Length > 0 || row.Remark.Length > 10, $"{row.Case}: neither"));

    [Fact]
    public void Every_test_in_the_table_exists()
    {
        HashSet<string> tests =
        [
            .. from type in typeof(TestCaseTableTests).Assembly.GetTypes()
               from method in type.GetMethods()
               where method.GetCustomAttributes().Any(attribute => attribute is FactAttribute)
               select $"{type.Name}.{method.Name}",
            // The end-to-end tests are another program: by their source.
            .. from file in Directory.GetFiles(Path.Combine(Root, "tests", "Causeway.EndToEnd"), "*.cs", SearchOption.AllDirectories)
               let source = File.ReadAllText(file)
               from Match type in TypeName().Matches(source)
               from Match method in TestMethod().Matches(source)
               select $"{type.Groups[1].Value}.{method.Groups[1].Value}",
        ];

        Assert.True(tests.Count > 100);
        Assert.Empty(Rows().SelectMany(row => row.Tests).Where(test => !tests.Contains(test)).Distinct());
    }

    private static string Root
    {
        get
        {
            string folder = AppContext.BaseDirectory;
            while (!File.Exists(Path.Combine(folder, "Causeway.slnx")))
            {
                folder = Path.GetDirectoryName(folder) ?? throw new InvalidOperationException("no Causeway.slnx above the tests");
            }

            return folder;
        }
    }

    private static IEnumerable<(string Case, string[] Tests, string Remark)> Rows() =>
        from line in File.ReadLines(Path.Combine(Root, "docs", "test-cases.md"))
        let row = Row().Match(line)
        where row.Success
        select (row.Groups[1].Value, Name().Matches(row.Groups[2].Value).Select(name => name.Groups[1].Value).ToArray(), row.Groups[3].Value);

    // The second cell may contain anything, so the last two are counted from the end.
    [GeneratedRegex(@"^\| ([A-Z][0-9]+[ab]?) \| .* \| ([^|]*) \| ([^|]*) \|$")]
    private static partial Regex Row();

    [GeneratedRegex(@"`([A-Za-z0-9_]+\.[A-Za-z0-9_]+)`")]
    private static partial Regex Name();

    [GeneratedRegex(@"class ([A-Za-z0-9_]+)")]
    private static partial Regex TypeName();

    [GeneratedRegex(@"public async Task ([A-Za-z0-9_]+)\(")]
    private static partial Regex TestMethod();
}
